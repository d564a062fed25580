-- census: does what is in the stream agree with what is pending?
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 the most waiting entries to count
-- Returns {balance}: the number of entries that were delivered and are in the stream, minus those that are
--         pending. Above 0: some were delivered, but are pending for nobody. Below 0: some are pending, but
--         were trimmed or deleted. Just {} when ARGV[2] or more wait.
local last, pending
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info['name'] == ARGV[1] then last, pending = info['last-delivered-id'], info['pending'] end
end
if not last then return redis.error_reply('NOGROUP no such consumer group') end
local most = tonumber(ARGV[2])
local waiting = #redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', most)
if waiting >= most then return {} end
return {redis.call('XLEN', KEYS[1]) - waiting - pending}
