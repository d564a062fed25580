-- join: take this consumer's lock and register the consumer in the group.
-- Also `resume` after a lapse: from here on nobody can take what is pending for the consumer.
--
-- KEYS  1 load balancer stream   2 this consumer's lock
-- ARGV  1 group   2 consumer   3 lock lifetime, ms   4 lock value (JSON, holds "ttl" in ms)
--       5 where a group that does not exist begins: "0", or, when it was destroyed under this consumer, the newest
--         entry that this consumer saw delivered. What is older is rescued, under new fences.
-- Returns 1.
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[5], 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[3])
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
