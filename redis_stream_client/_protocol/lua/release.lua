-- release: give entries to a consumer that never has a lock, so that any peer can claim them at once.
-- The delivery count stays: the next owner's claim adds one.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 consumer   3 the consumer that never has a lock   4 control channel
--       then, for each entry: id, delivery count
-- Returns for each entry 'released', 'gone', or the name of the current owner. If the entry is pending for ARGV[3] with
--         this count or a higher one, or for anybody with a higher one, an earlier call of ours has released it:
--         'released'.
-- Hint  released <id> <id> ...
local results = {}
local ids = {}
for i = 5, #ARGV, 2 do
  local id, count = ARGV[i], tonumber(ARGV[i + 1])
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not pending then
    results[#results + 1] = 'gone'
  elseif pending[2] == ARGV[2] and pending[4] == count then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, id, 'JUSTID')
    ids[#ids + 1] = id
    results[#results + 1] = 'released'
  elseif pending[2] == ARGV[3] and pending[4] >= count or pending[4] > count then
    results[#results + 1] = 'released'
  else
    results[#results + 1] = pending[2]
  end
end
if #ids > 0 then redis.call('PUBLISH', ARGV[4], 'released ' .. table.concat(ids, ' ')) end
return results
