-- lift: raise the delivery count of an entry. Redis may have lost writes in a failover, and count from the start; with
-- the higher count the fence is again greater than every earlier one.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 consumer   3 entry id   4 its delivery count now   5 the new, higher count
-- Returns 'lifted', 'gone', or the name of the current owner (this consumer's own, if the counts do not fit).
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending then return 'gone' end
if pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[4]) or pending[4] >= tonumber(ARGV[5]) then
  return pending[2]
end
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', ARGV[5], 'JUSTID')
local now = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if now then return 'lifted' end
return 'gone'
