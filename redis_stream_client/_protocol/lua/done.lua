-- done: acknowledge and delete announcements, each only if owner and delivery count are those of the caller. They are
-- no longer the newest ones of their streams, which must not depend on a permission: an older rule has none for it.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 consumer   then, for each entry: id, delivery count, stream
-- Returns for each entry 'done', 'gone' (the entry is not pending), or the name of the current owner
--         (this consumer's own, if only the count differs).
--#include withheld
local results, mine, streams = {}, {}, {}
for i = 3, #ARGV, 3 do
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not pending then
    results[#results + 1] = 'gone'
  elseif pending[2] == ARGV[2] and pending[4] == tonumber(ARGV[i + 1]) then
    mine[#mine + 1] = id
    streams[#streams + 1] = ARGV[i + 2]
    results[#results + 1] = 'done'
  else
    results[#results + 1] = pending[2]
  end
end
if #mine > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(mine))
  redis.call('XDEL', KEYS[1], unpack(mine))
  local newest, finished = redis.pcall('HMGET', KEYS[2], unpack(streams)), {}
  for i, id in ipairs(mine) do
    if names(newest[i], id) then finished[#finished + 1] = streams[i] end
  end
  if #finished > 0 then redis.pcall('HDEL', KEYS[2], unpack(finished)) end
end
return results
