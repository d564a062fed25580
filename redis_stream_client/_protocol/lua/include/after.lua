-- after: the entries of a stream behind an id. For doze.lua and retain.lua.

-- At most `count` of them; or a table with `err`. Behind the greatest id there is none, and Redis would not let us ask.
local function entries_after(stream, id, count)
  if id == '18446744073709551615-18446744073709551615' then return {} end
  return redis.pcall('XRANGE', stream, '(' .. id, '+', 'COUNT', count)
end
