-- evict: an operator takes a consumer out of the fleet. What is pending for it is released, a page at a time, and with
-- the last page its lock and its declaration of presence go. So what it owned counts as given back, and not as what it
-- has died of. What is pending for one that has no lock is left to the peers, which will take it over anyway.
--
-- KEYS  1 load balancer stream   2 the consumer's lock   3 the present
-- ARGV  1 group   2 consumer   3 the consumer that never has a lock   4 control channel   5 page size
-- Returns {'unknown'}: there is no such consumer. {'evicted', how many entries were released, 1 if more are to come,
--         else 0}
-- Hint  taken <id> <id> ... <consumer>
-- Hint  released <id> <id> ...
-- Hint  dead <consumer>
--#include known
local found = known(KEYS[1], ARGV[1], ARGV[2])
if not found then return {'unknown'} end
if found ~= true then return found end
local ids, most = {}, tonumber(ARGV[5])
if redis.call('EXISTS', KEYS[2]) == 1 then
  for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', most, ARGV[2])) do
    ids[#ids + 1] = pending[1]
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, pending[1], 'JUSTID')
  end
  if #ids > 0 then
    redis.call('PUBLISH', ARGV[4], 'taken ' .. table.concat(ids, ' ') .. ' ' .. ARGV[2])
    redis.call('PUBLISH', ARGV[4], 'released ' .. table.concat(ids, ' '))
  end
  if #ids == most then return {'evicted', #ids, 1} end
end
local removed = redis.pcall('HDEL', KEYS[3], ARGV[2])
if type(removed) == 'table' and not string.find(removed.err, 'WRONGTYPE', 1, true) then return removed end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[4], 'dead ' .. ARGV[2])
return {'evicted', #ids, 0}
