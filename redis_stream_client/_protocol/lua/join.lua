-- join: take this consumer's lock, and register the consumer in the group.
-- A client also resumes with it after a lapse: from then on no peer can take what is pending for the consumer. Its
-- presence is declared anew after that. An order to drain stays in the lock, if that is still there.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 the present
-- ARGV  1 group   2 consumer   3 lock lifetime, ms   4 lock value (JSON, holds "ttl" in ms)
--       5 if the group does not exist, it delivers the entries after this id: "0", or the newest entry that was
--         delivered to this consumer before somebody destroyed the group. Older entries are rescued, with new fences.
-- Returns 1.
--#include drain_order
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[5], 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
local order = drain_order(redis.pcall('GET', KEYS[2])) -- an error for what is no string, so none of ours
redis.call('SET', KEYS[2], with_drain_order(ARGV[4], order), 'PX', ARGV[3])
redis.pcall('HDEL', KEYS[3], ARGV[2]) -- a declaration from before a lapse is void
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
