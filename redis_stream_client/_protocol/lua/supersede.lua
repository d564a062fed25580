-- supersede: finish an announcement in favour of a newer one of the same stream, only while that one is in the load
-- balancer stream: otherwise nobody would read what comes because of ours. Only if owner and delivery count are those of
-- the caller.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 consumer   3 entry id   4 delivery count   5 stream   6 id of the newer one
-- Returns 'done', 'over' (there is no newer one any more, and nothing was changed), 'gone' (the entry is not pending), or
--         the current owner's name.
--#include withheld
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending then return 'gone' end
if pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[4]) then return pending[2] end
if not redis.call('XRANGE', KEYS[1], ARGV[6], ARGV[6])[1] then return 'over' end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
local newest = redis.pcall('HGET', KEYS[2], ARGV[5])
if names(newest, ARGV[3]) then redis.pcall('HDEL', KEYS[2], ARGV[5]) end
return 'done'
