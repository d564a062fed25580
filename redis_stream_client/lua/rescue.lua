-- rescue: entries that were delivered but are pending for nobody (an operator's XGROUP DELCONSUMER, or an
-- XACK without XDEL) are made claimable again. How often each was delivered is forgotten; the clock, in ms, takes
-- the count's place, so that the next fence is greater than every one before.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 the consumer that never has a lock   3 first id, "-" or "(id"   4 page size
--       5 control channel
-- Returns {how many were rescued, last id looked at or '' at the end}
local last
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info['name'] == ARGV[1] then last = info['last-delivered-id'] end
end
if not last then return redis.error_reply('NOGROUP no such consumer group') end
local time = redis.call('TIME')
local count = time[1] * 1000 + math.floor(time[2] / 1000)
local entries = redis.call('XRANGE', KEYS[1], ARGV[3], last, 'COUNT', ARGV[4])
local ids = {}
for _, entry in ipairs(entries) do
  local id = entry[1]
  if #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1) == 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'RETRYCOUNT', string.format('%.0f', count), 'FORCE', 'JUSTID')
    ids[#ids + 1] = id
  end
end
if #ids > 0 then redis.call('PUBLISH', ARGV[5], 'released ' .. table.concat(ids, ' ')) end
return {#ids, #entries == tonumber(ARGV[4]) and entries[#entries][1] or ''}
