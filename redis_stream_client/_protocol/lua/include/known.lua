-- known: whether the group has a consumer. For evict.lua and order_drain.lua.

-- A table with `err` if Redis refuses to say. A group that does not exist has none.
local function known(stream, group, consumer)
  local consumers = redis.pcall('XINFO', 'CONSUMERS', stream, group)
  if consumers.err then
    local none = string.find(consumers.err, 'NOGROUP', 1, true) or string.find(consumers.err, 'no such key', 1, true)
    return not none and consumers
  end
  for _, info in ipairs(consumers) do
    if info[2] == consumer then return true end
  end
  return false
end
