-- peek: read a few entries of data streams. Changes nothing.
--
-- KEYS  data streams
-- ARGV  1 the most bytes of all entries together; then for each stream the id after which to read
-- Returns for each stream its next entries, as far as they fit. When there is no room left it stops, and the other
--         streams have no result.
local MANY = 16 -- entries of one stream, if the first of them is small
local SMALL = 4096
local room = tonumber(ARGV[1])
local results = {}
local function size(entry) -- of its fields
  local bytes = 0
  for _, word in ipairs(entry[2]) do bytes = bytes + #word end
  return bytes
end
for i = 1, #KEYS do
  if room <= 0 then break end
  results[i] = {}
  local found = redis.pcall('XRANGE', KEYS[i], '(' .. ARGV[i + 1], '+', 'COUNT', 1)
  if not found.err and #found > 0 and size(found[1]) <= SMALL then
    found = redis.pcall('XRANGE', KEYS[i], '(' .. ARGV[i + 1], '+', 'COUNT', MANY)
  end
  if not found.err then
    for _, entry in ipairs(found) do
      local bytes = size(entry)
      if bytes > room then break end
      room = room - bytes
      table.insert(results[i], entry)
    end
  end
end
return results
