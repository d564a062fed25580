-- forget: remove a consumer from the group that is long dead and owns nothing. XGROUP DELCONSUMER would also drop
-- pending entries, so this script checks everything again.
--
-- KEYS  1 load balancer stream   2 the consumer's lock   3 the present
-- ARGV  1 group   2 consumer   3 least idle time, ms
-- Returns 1 if it was removed, else 0.
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
redis.pcall('HDEL', KEYS[3], ARGV[2]) -- refused to one that may not declare its presence
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if info[2] == ARGV[2] and info[4] == 0 and info[6] >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0
