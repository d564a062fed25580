-- listing: a page of announcements, each with its owner. Changes nothing.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 consumer: only what is pending for it; '' for all   3 first id   4 last id   5 how many to look at
--       6 bytes of announcements after which to stop   7 leave out those that cannot contain this text; '' for none
-- Returns {id of the last one that was looked at, or '' if these were all}, and for each: id, fields, owner or '' if it
--         waits, delivery count
local PIECE = 16
--#include greatest
local group, consumer, from, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local most, bytes, text = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]
local page, looked = {''}, 0
local function pending(...)
  local found = redis.pcall('XPENDING', KEYS[1], group, ...)
  return found.err and string.find(found.err, 'NOGROUP', 1, true) and {} or found
end
local function may_contain(words)
  for _, word in ipairs(words) do
    -- JSON may write any character as \u and its number
    if string.find(word, text, 1, true) or string.find(word, '\\u', 1, true) then return true end
  end
  return false
end
-- Adds an entry to the page. Returns false if no more is to be looked at.
local function add(entry, one)
  looked = looked + 1
  for _, word in ipairs(entry[2]) do bytes = bytes - #word end
  if text == '' or may_contain(entry[2]) then
    one = one or pending(entry[1], entry[1], 1)
    if one.err then return one end
    local by = one[1]
    for _, word in ipairs({entry[1], entry[2], by and by[2] or '', by and by[4] or 0}) do page[#page + 1] = word end
  end
  return looked < most and bytes > 0
end
if consumer ~= '' then
  local listed = pending(from, to, most, consumer)
  if listed.err then return listed end
  for i, one in ipairs(listed) do
    local entry = redis.call('XRANGE', KEYS[1], one[1], one[1])[1] -- nil: it was trimmed
    local goes_on = not entry or add(entry, {one})
    if not goes_on or i == most then
      page[1] = one[1]
      break
    end
  end
  return page
end
while true do
  local piece = redis.call('XRANGE', KEYS[1], from, to, 'COUNT', PIECE)
  for _, entry in ipairs(piece) do
    local goes_on = add(entry)
    if type(goes_on) == 'table' then return goes_on end
    if not goes_on then
      page[1] = entry[1]
      return page
    end
  end
  if #piece < PIECE or piece[#piece][1] == GREATEST then return page end
  from = '(' .. piece[#piece][1]
end
