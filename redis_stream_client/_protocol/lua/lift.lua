-- lift: raise an entry's delivery count, when Redis lost writes in a failover and counts anew, so that the
-- fence is greater again than every one that was ever handed out.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 consumer   3 entry id   4 delivery count it has now   5 the higher count it shall have
-- Returns 'lifted', 'gone', or the current owner's name (this consumer's own, when the counts do not fit).
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending then return 'gone' end
if pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[4]) or pending[4] >= tonumber(ARGV[5]) then
  return pending[2]
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[5], 'JUSTID')
local now = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if now then return 'lifted' end
return 'gone'
