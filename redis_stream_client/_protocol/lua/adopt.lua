-- adopt: give a new fence to entries that are pending for this consumer, but unknown to it. The delivery count grows,
-- so that everything that carries an older fence is refused from now on.
--
-- KEYS  1 load balancer stream   2 this consumer's lock
-- ARGV  1 group   2 consumer   3 bytes of announcements after which to stop
--       then, for each entry: id, the delivery count that we have seen
-- Returns for each entry {delivery count, fields}, {'gone'} if it was trimmed, or {'changed'} if it has another owner
--         or another count now. If it stops early, there are results for the first entries only.
--         Just {'lapsed'} if our lock does not exist.
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
local results, bytes = {}, tonumber(ARGV[3])
for i = 4, #ARGV, 2 do
  if bytes <= 0 then break end
  local id = ARGV[i]
  local result = {'changed'}
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if pending and pending[2] == ARGV[2] and pending[4] == tonumber(ARGV[i + 1]) then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
    if entry then
      result = {pending[4] + 1, entry[2]}
      for _, word in ipairs(entry[2]) do bytes = bytes - #word end
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      result = {'gone'}
    end
  end
  results[#results + 1] = result
end
return results
