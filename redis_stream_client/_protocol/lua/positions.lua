-- positions: how far data streams were processed, and what comes after that. Changes nothing.
--
-- KEYS  for each stream: its progress record; the data stream, in the same slot
-- ARGV  1 the most entries to count of each   2 the most of all together   3 bytes of entries after which to stop
-- Returns {the server's clock in ms}, and for the first streams, up to where it stopped:
--   {the record's fence, checkpoint, attempts, failures, failing, failed and error, each '' if it is not there; id of the
--    first entry after the checkpoint or ''; how many come after it; 1 if there may be more, else 0}
--   {'record', message} or {'stream', message} if Redis refuses one of the two
--#include after
local time = redis.call('TIME')
local results = {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
local most, all, bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function count(i, checkpoint) -- the first id, how many, whether there may be more
  local found = entries_after(KEYS[i + 1], checkpoint, 1)
  if found.err then return found end
  if not found[1] then return '', 0, 0 end
  local first, last, entries = found[1][1], found[1][1], 1
  if not checkpoint then
    local length = redis.pcall('XLEN', KEYS[i + 1])
    if type(length) == 'table' then return length end
    return first, length, 0
  end
  local size, more = 1, true
  while true do
    for _, entry in ipairs(found) do
      last = entry[1]
      for _, word in ipairs(entry[2]) do bytes = bytes - #word end
    end
    if entries > most then return first, most, 1 end
    if bytes <= 0 or not more then return first, entries, more and 1 or 0 end
    size = math.min(4 * size, most + 1 - entries)
    found = entries_after(KEYS[i + 1], last, size)
    entries, more = entries + #found, #found == size
  end
end
for i = 1, #KEYS, 2 do
  if all <= 0 or bytes <= 0 then break end
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'checkpoint', 'attempts', 'failures', 'failing', 'failed', 'error')
  local result
  if stored.err then
    result = {'record', stored.err}
  else
    local first, entries, more = count(i, stored[2])
    if type(first) == 'table' then
      result = {'stream', first.err}
    else
      result = {}
      for j = 1, 7 do result[j] = stored[j] or '' end
      result[8], result[9], result[10] = first, entries, more
      if stored[2] then all = all - entries end
    end
  end
  results[#results + 1] = result
end
return results
