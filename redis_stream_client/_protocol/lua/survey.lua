-- survey: the load balancer stream, its consumer group, and which of the consumers live, all at one moment. Changes
-- nothing.
--
-- KEYS  1 load balancer stream
--       then locks
-- ARGV  1 group   2 the most waiting entries to count   3 bytes of them after which to stop counting
--       then the consumer of each lock
-- Returns {the server's clock in ms, entries, pending entries, waiting entries (below 0: so many, and perhaps more), the
--         id of the oldest waiting one or '', 1 if there is a group, else 0}, and for each consumer: its name, how many
--         entries are pending for it, ms since Redis last heard of it, and for how many ms its lock will live; -1: for
--         ever; -2: it does not exist; -3: it was not among the locks
--#include greatest
--#include group
local time = redis.call('TIME')
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then
  if not string.find(groups.err, 'no such key', 1, true) then return groups end
  groups = {}
end
local last, pending = find_group(groups, ARGV[1])
local waiting, oldest, all = undelivered(KEYS[1], last or '0-0', tonumber(ARGV[2]), tonumber(ARGV[3]))
local found = {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), redis.call('XLEN', KEYS[1]),
  pending or 0, all and waiting or -waiting, oldest, last and 1 or 0}
if not last then return found end
local lives = {}
for i = 2, #KEYS do lives[ARGV[i + 2]] = redis.call('PTTL', KEYS[i]) end
local size = #found
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name = consumer[2]
  found[size + 1], found[size + 2], found[size + 3], found[size + 4] = name, consumer[4], consumer[6], lives[name] or -3
  size = size + 4
end
return found
