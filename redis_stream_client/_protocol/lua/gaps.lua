-- gaps: tell what Redis knows about the entries of data streams, even about removed ones. Changes nothing.
--
-- KEYS  data streams
-- ARGV  1 bytes: stop when the entries that this script has touched are larger together
-- Returns results for the first streams, up to where it stopped:
--   {entries ever added, entries there, id of the first, id of the last, greatest id that XDEL has removed}
--   {0}  if the server does not count them (Redis 6.2), or does not permit the question
--   {}   if the key is not a stream
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
