-- done: acknowledge and delete announcements, each only if owner and delivery count are those of the caller.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 consumer   then, for each entry: id, delivery count
-- Returns for each entry 'done', 'gone' (the entry is not pending), or the name of the current owner
--         (this consumer's own, if only the count differs).
local results, mine = {}, {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not pending then
    results[#results + 1] = 'gone'
  elseif pending[2] == ARGV[2] and pending[4] == tonumber(ARGV[i + 1]) then
    mine[#mine + 1] = id
    results[#results + 1] = 'done'
  else
    results[#results + 1] = pending[2]
  end
end
if #mine > 0 then
  redis.call('XACK', KEYS[1], ARGV[1], unpack(mine))
  redis.call('XDEL', KEYS[1], unpack(mine))
end
return results
