-- leave: give up the lock, so that peers can claim all that is pending for this consumer at once. Acknowledges nothing.
--
-- KEYS  1 this consumer's lock
-- ARGV  1 consumer   2 control channel
-- Returns 1 if the lock was still there, else 0.
-- Hint  left <consumer>
local there = redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], 'left ' .. ARGV[1])
return there
