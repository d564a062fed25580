-- withdraw: take the declaration of this consumer back, and renew its lock: from now on only the lock tells whether it
-- lives.
--
-- KEYS  1 this consumer's lock   2 the present
-- ARGV  1 consumer   2 lock lifetime, ms
-- Returns 1 if the lock was there; 0: a peer has taken this consumer for dead, or the lock has expired.
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
