-- census: compare the entries in the stream with the pending ones, and tell how long the oldest has waited.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 the most waiting entries to count   3 bytes of them after which to stop counting
-- Returns {oldest waiting id or '', the server's clock in ms, surplus, balance}: the surplus is the number of fields of
--         the hash minus that of entries in the stream. Above 0: some are stale, or the hash cannot be read. The balance
--         is the number of entries that were delivered and are in the stream, minus those that are pending. Above 0:
--         some were delivered, but are pending for nobody. Below 0: some are pending, but were trimmed or deleted. No
--         balance when too many wait to tell.
--#include greatest
--#include group
local last, pending = find_group(redis.call('XINFO', 'GROUPS', KEYS[1]), ARGV[1])
if not last then return redis.error_reply('NOGROUP no such consumer group') end
local time = redis.call('TIME')
local found = {'', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
local known, entries = redis.pcall('HLEN', KEYS[2]), redis.call('XLEN', KEYS[1])
found[3] = type(known) == 'number' and known - entries or 1
local waiting, oldest, all = undelivered(KEYS[1], last, tonumber(ARGV[2]), tonumber(ARGV[3]))
found[1] = oldest
if not all then return found end
found[4] = entries - waiting - pending
return found
