-- outstanding: the announcement of a stream that waits or is pending. For announce.lua, and whoever asks the same.

-- The id of a stream's newest announcement, and its bytes, if its entry is still in the load balancer stream. nil: there
-- is none, as far as the hash knows. The hash is a belief: what an older version, another library or an operator has
-- finished or trimmed is still in it. The second is nil and the first a table with `err`, if Redis refuses.
local function outstanding(lbs, announced, stream)
  local id = redis.pcall('HGET', announced, stream)
  if not id then return nil end
  if type(id) == 'table' then return id end
  local found = redis.pcall('XRANGE', lbs, id, id)
  if found.err then -- whatever stands there that is no id names no entry
    if string.find(found.err, 'Invalid stream ID', 1, true) then return nil end
    return found
  end
  local entry = found[1]
  if not entry then return nil end
  local bytes = 0
  for _, word in ipairs(entry[2]) do bytes = bytes + #word end
  return entry[1], bytes
end
