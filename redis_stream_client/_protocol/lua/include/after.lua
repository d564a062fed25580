-- after: the entries of a stream behind an id. For doze.lua, positions.lua and retain.lua.

-- At most `count` of them, from the start if there is no id; or a table with `err`. Behind the greatest id there is none,
-- and Redis would not let us ask.
local function entries_after(stream, id, count)
  if id == '18446744073709551615-18446744073709551615' then return {} end
  return redis.pcall('XRANGE', stream, id and '(' .. id or '-', '+', 'COUNT', count)
end
