-- take_away: an operator takes a stream from its owner, asked or not: as in release, anybody may claim it then.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 its owner   3 the consumer that never has a lock   4 control channel   5 entry id   6 delivery count
-- Returns 1 if it was pending for this owner with this delivery count, else 0.
-- Hint  taken <id> <consumer>
-- Hint  released <id>
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[5], ARGV[5], 1)[1]
if not pending or pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[6]) then return 0 end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[5], 'JUSTID')
redis.call('PUBLISH', ARGV[4], 'taken ' .. ARGV[5] .. ' ' .. ARGV[2])
redis.call('PUBLISH', ARGV[4], 'released ' .. ARGV[5])
return 1
