-- withdraw: take the declaration of this consumer back, and renew its lock: from now on only the lock tells whether it
-- lives.
--
-- KEYS  1 this consumer's lock   2 the present
-- ARGV  1 consumer   2 lock lifetime, ms
-- Returns 1 if the lock was there; 0: a peer has taken this consumer for dead, or the lock has expired.
local removed = redis.pcall('HDEL', KEYS[2], ARGV[1])
if type(removed) == 'table' and removed.err and not string.find(removed.err, 'WRONGTYPE', 1, true) then
  -- It was permitted when we declared. Without this, nothing would ever end our doubt; the others declare anew.
  redis.call('DEL', KEYS[2])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
