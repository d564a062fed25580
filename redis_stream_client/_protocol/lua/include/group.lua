-- group: the consumer group, and the entries that it has not delivered yet. For census.lua, and whoever asks the same.
-- Include `greatest` before.

-- The last id that the group has delivered, and how many entries are pending. nil: there is no such group.
local function find_group(groups, name)
  for _, group in ipairs(groups) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    if info['name'] == name then return info['last-delivered-id'], info['pending'] end
  end
end

-- How many entries come after `last`, the id of the first of them or '', and whether these are all: it stops after `most`
-- entries, or when they have so many bytes.
local function undelivered(lbs, last, most, bytes)
  local PIECE = 16
  local waiting, oldest = 0, ''
  while last ~= GREATEST do
    local page = redis.call('XRANGE', lbs, '(' .. last, '+', 'COUNT', PIECE)
    if waiting == 0 and page[1] then oldest = page[1][1] end
    waiting = waiting + #page
    if #page < PIECE then return waiting, oldest, true end
    for _, entry in ipairs(page) do
      for _, word in ipairs(entry[2]) do bytes = bytes - #word end
    end
    if waiting >= most or bytes <= 0 then return waiting, oldest, false end
    last = page[#page][1]
  end
  return waiting, oldest, true
end
