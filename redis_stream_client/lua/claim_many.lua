-- claim_many: take up to n pending entries of one dead owner. A repeat takes n more:
-- after a lost reply, audit before the next call.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 the owner's lock
-- ARGV  1 group   2 consumer   3 owner   4 n   5 control channel
-- Returns {'won', {id, delivery count, fields}, ...}   as many as were there
--         {'alive', owner}                             the owner's lock exists
--         {'lapsed'}                                   this consumer's own lock does not exist
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'alive', ARGV[3]} end
local won = {'won'}
local ids = {}
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], ARGV[3])) do
  local id = pending[1]
  local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
  if entry then
    won[#won + 1] = {id, pending[4] + 1, entry[2]}
    ids[#ids + 1] = id
  else -- trimmed while pending
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
end
if #ids > 0 then redis.call('PUBLISH', ARGV[5], 'claimed ' .. table.concat(ids, ' ')) end
return won
