-- claim: take one pending entry from an owner that is dead; compare and set in one step.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 the expected owner's lock
-- ARGV  1 group   2 consumer   3 expected owner   4 entry id   5 control channel
-- Returns {'won', delivery count, fields, ms}      it is ours, under a new fence; ms since it was delivered or released
--         {'gone'}                                 finished, trimmed or deleted; a dangling record is cleaned up
--         {'owner', current owner, its count}      pending for another than the expected owner
--         {'alive', owner}                         the expected owner's lock exists
--         {'lapsed'}                               this consumer's own lock does not exist
-- Hint  claimed <id>
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[4], ARGV[4], 1)[1]
if not pending then return {'gone'} end
if pending[2] ~= ARGV[3] then return {'owner', pending[2], pending[4]} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'alive', ARGV[3]} end
local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[4])[1]
if not entry then -- trimmed while pending: 7.0 dropped it, 6.2 made us its owner
  redis.call('XACK', KEYS[1], ARGV[1], ARGV[4])
  return {'gone'}
end
redis.call('PUBLISH', ARGV[5], 'claimed ' .. ARGV[4])
return {'won', pending[4] + 1, entry[2], pending[3]}
