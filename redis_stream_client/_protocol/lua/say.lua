-- say: write this consumer's lock anew, because it has something else to say. Its life stays as it is.
--
-- KEYS  1 this consumer's lock
-- ARGV  1 lock value (JSON)
-- Returns 1 if the lock is there, else 0.
--#include drain_order
local said = redis.pcall('GET', KEYS[1]) -- an error for what is no string, so none of ours
if not said then return 0 end
redis.call('SET', KEYS[1], with_drain_order(ARGV[1], drain_order(said)), 'KEEPTTL')
return 1
