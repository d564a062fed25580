-- rescue: make entries claimable that were delivered, but are not pending (after XGROUP DELCONSUMER by an operator, or
-- XACK without XDEL). Redis has forgotten their delivery counts. The clock in ms replaces the count, so that the next
-- fence is greater than every earlier one.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 the consumer that never has a lock   3 first id, "-" or "(id"   4 page size
--       5 bytes of announcements after which to stop   6 control channel
-- Returns {number of rescued entries, id of the last entry that was looked at or '' if that was all}
-- Hint  released <id> <id> ...
local PIECE, LARGE = 16, 125 -- entries that are read at once, at first and at most
local SMALL = 65536 -- bytes of a piece after which a larger one is read
--#include greatest
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info['name'] == ARGV[1] then last = info['last-delivered-id'] end
end
if not last then return redis.error_reply('NOGROUP no such consumer group') end
local time = redis.call('TIME')
local count = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local ids, looked, bytes, from, ended = {}, 0, tonumber(ARGV[5]), ARGV[3], false
local piece = PIECE
while looked < tonumber(ARGV[4]) and bytes > 0 and not ended do
  local page = redis.call('XRANGE', KEYS[1], from, last, 'COUNT', piece)
  ended = #page < piece or page[#page][1] == GREATEST
  looked = looked + #page
  local known = {}
  if #page > 0 then
    for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], page[1][1], page[#page][1], 2 * piece)) do
      known[pending[1]] = true
    end
  end
  local before = bytes
  for _, entry in ipairs(page) do
    local id = entry[1]
    from = '(' .. id
    for _, word in ipairs(entry[2]) do bytes = bytes - #word end
    if not known[id] and #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0 then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
      ids[#ids + 1] = id
    end
  end
  piece = before - bytes < SMALL and math.min(LARGE, 4 * piece) or PIECE
end
if #ids > 0 then redis.call('PUBLISH', ARGV[6], 'released ' .. table.concat(ids, ' ')) end
return {#ids, ended and '' or string.sub(from, 2)}
