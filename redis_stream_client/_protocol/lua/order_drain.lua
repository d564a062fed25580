-- order_drain: note in the lock of a consumer that it is to drain, so that it reads it with its beats; and in a key of its
-- own, because the lock may expire or be deleted while the consumer stands still: it finds the order when it comes back.
-- The order concerns no other process. It stays when the consumer writes or takes its lock anew: see the included
-- `drain_order`.
--
-- KEYS  1 load balancer stream   2 the consumer's lock   3 the order, a string: when it was given, in ms
-- ARGV  1 group   2 consumer   3 control channel   4 lifetime of the order, ms
-- Returns 'ordered'; 'gone': it has no lock, so it has left or is dead, or will come back and find the order; 'unknown':
--         there is no such consumer; 'foreign': this library has not written that lock.
-- Hint  ordered
--#include drain_order
--#include known
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local said = redis.pcall('GET', KEYS[2])
if not said then
  local found = known(KEYS[1], ARGV[1], ARGV[2])
  if type(found) == 'table' then return found end
  if found then redis.call('SET', KEYS[3], now, 'PX', ARGV[4]) end
  return found and 'gone' or 'unknown'
end
if type(said) == 'table' and not string.find(said.err, 'WRONGTYPE', 1, true) then return said end
if type(said) ~= 'string' or string.sub(said, -1) ~= '}' then return 'foreign' end
redis.call('SET', KEYS[3], now, 'PX', ARGV[4])
if not drain_order(said) then
  redis.call('SET', KEYS[2], with_drain_order(said, ', "drain": ' .. now), 'KEEPTTL')
end
redis.call('PUBLISH', ARGV[3], 'ordered')
return 'ordered'
