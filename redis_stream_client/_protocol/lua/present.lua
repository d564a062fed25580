-- present: declare this consumer present. From now on a peer may take it for dead as soon as nobody subscribes to its
-- channel on this very server.
--
-- KEYS  1 this consumer's lock   2 the present (hash: consumer -> "<run id> <grace in ms> <nonce>")
-- ARGV  1 consumer   2 its channel   3 its grace, ms   4 nonce: tells this declaration from the earlier ones
--       5 control channel
-- Returns 'present'; 'absent': this server does not see our subscription (a proxy, or another node); or 'lapsed'.
-- Hint  present <consumer>
if redis.call('EXISTS', KEYS[1]) == 0 then return 'lapsed' end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if not run_id or redis.call('PUBSUB', 'NUMSUB', ARGV[2])[2] == 0 then return 'absent' end
-- Whoever may not withdraw or watch must not declare. And a full Redis lets a script go on that has written.
redis.call('HLEN', KEYS[2])
redis.call('HGET', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], run_id .. ' ' .. ARGV[3] .. ' ' .. ARGV[4])
redis.call('PUBLISH', ARGV[5], 'present ' .. ARGV[1])
return 'present'
