-- adopt: what is pending for this consumer but unknown to it becomes a new lease; the count grows, so that
-- nothing that carries an older fence is accepted any more.
--
-- KEYS  1 load balancer stream   2 this consumer's lock
-- ARGV  1 group   2 consumer   then, for each entry: id, the delivery count it was seen with
-- Returns for each entry {delivery count, fields}, {'gone'} if it was trimmed, or {'changed'} if it is
--         pending for another or with another count; just {'lapsed'} when our lock does not exist.
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
local results = {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local result = {'changed'}
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if pending and pending[2] == ARGV[2] and pending[4] == tonumber(ARGV[i + 1]) then
    local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
    if entry then
      result = {pending[4] + 1, entry[2]}
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      result = {'gone'}
    end
  end
  results[#results + 1] = result
end
return results
