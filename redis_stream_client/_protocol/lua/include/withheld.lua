-- withheld: what the hash of the newest announcements holds of a stream: an LBS id; or, while its owner may put it to sleep,
-- that with '!' and the number of the attempt, which names no entry and so does not count as outstanding. For done.lua,
-- bury.lua, supersede.lua and withhold.lua.

-- The LBS id, and the attempt or 0. nil: it is neither.
local function parsed(value)
  local id, attempt = string.match(type(value) == 'string' and value or '', '^(%d+%-%d+)!?(%d*)$')
  return id, tonumber(attempt) or 0
end

-- Whether it is this announcement, withheld or not.
local function names(value, id)
  return parsed(value) == id
end
