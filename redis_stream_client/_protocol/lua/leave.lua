-- leave: give up the lock, so that peers can claim all that is pending for this consumer at once. Acknowledges nothing.
--
-- KEYS  1 this consumer's lock   2 the present
-- ARGV  1 consumer   2 control channel
-- Returns 1 if the lock was still there, else 0.
-- Hint  left <consumer>
local there = redis.call('DEL', KEYS[1])
redis.pcall('HDEL', KEYS[2], ARGV[1]) -- refused to one that may not declare its presence
redis.call('PUBLISH', ARGV[2], 'left ' .. ARGV[1])
return there
