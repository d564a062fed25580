-- gaps: what Redis knows of data streams' entries, also of those that are no longer there. Changes nothing.
--
-- KEYS  data streams
-- ARGV  1 bytes: no more streams are looked at when the entries that were touched are larger together
-- Returns for each that was looked at, from the first on,
--   {entries ever added, entries there, id of the first, id of the last, greatest id that XDEL removed}
--   {0}  where the server does not count (Redis 6.2), or it is not permitted
--   {}   where the key is no stream
local results, touched = {}, 0
local function size(entry) -- of the fields of an entry
  local bytes = 0
  for _, word in ipairs(entry and entry[2] or {}) do bytes = bytes + #word end
  return bytes
end
for i = 1, #KEYS do
  if touched > tonumber(ARGV[1]) then break end
  local info = redis.pcall('XINFO', 'STREAM', KEYS[i])
  results[i] = {}
  if info.err then
    if string.find(info.err, 'no such key', 1, true) then
      results[i] = {0, 0, '0-0', '0-0', '0-0'}
    elseif not string.find(info.err, 'WRONGTYPE', 1, true) then
      results[i] = {0}
    end
  else
    local known = {}
    for j = 1, #info, 2 do known[info[j]] = info[j + 1] end
    local first, last = known['first-entry'], known['last-entry']
    touched = touched + size(first) + size(last)
    if known['entries-added'] then
      results[i] = {
        known['entries-added'], known['length'], first and first[1] or '0-0', last and last[1] or '0-0',
        known['max-deleted-entry-id'],
      }
    else
      results[i] = {0}
    end
  end
end
return results
