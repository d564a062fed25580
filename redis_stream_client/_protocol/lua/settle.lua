-- settle: an owner ends cleanly, so its attempt does not count, nor do the deaths before it, or its attempt alone. The
-- record of a stream that is finished goes on refusing older owners for a while, and then expires. As in doze, the mark
-- asleep says that its announcement is over.
--
-- KEYS  progress records
-- ARGV  for each record: fence; consumer; lifetime in ms, or 0 to keep it for the next owner; 1 if nothing was read
--       that has no checkpoint, else 0: the next owner can tell then who deleted what it does not find; if this
--       owner goes on and has nothing left to do 1, else 0: earlier failures do not count then either; and 1 if
--       its own attempt alone does not count, else 0
-- Returns for each 1 if it was this owner's, else 0. A repeat by the same owner changes nothing.
local WORDS = 6
local LBS_ID = 41 -- characters of a fence that name the announcement
local function count(text) -- whatever else stands there counts none
  return text and #text < 10 and string.match(text, '^%d+$') and tonumber(text) or 0
end
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'attempts', 'added', 'failed', 'failures',
    'checkpoint', 'asleep')
  results[i] = 0
  if not stored.err and stored[1] == ARGV[at + 1] and stored[2] == ARGV[at + 2] then
    local mark = stored[1] .. ' ' .. (stored[7] or '')
    local taken = stored[5] == mark -- its attempt was: see fail
    local left = ARGV[at + 6] == '1' and count(stored[3]) - (taken and 0 or 1) or 0
    if left > 0 and not taken then
      redis.pcall('HSET', KEYS[i], 'attempts', left, 'failed', mark, 'began', '')
    elseif left <= 0 and stored[3] ~= '0' then
      redis.pcall('HSET', KEYS[i], 'attempts', 0)
    end
    if ARGV[at + 4] == '1' and stored[4] and string.match(stored[4], '^%d+$') then
      redis.pcall('HSET', KEYS[i], 'added', stored[4] .. '!')
    end
    local over = ARGV[at + 3] ~= '0' or ARGV[at + 5] == '1' or left <= 0 and (stored[6] or '0') == '0'
    if over and stored[5] and stored[5] ~= '' then
      redis.pcall('HSET', KEYS[i], 'failures', 0, 'failing', '', 'failed', '', 'error', '')
    end
    if ARGV[at + 3] ~= '0' then
      local announcement = string.sub(stored[1], 1, LBS_ID)
      if (stored[8] or '') < announcement then redis.pcall('HSET', KEYS[i], 'asleep', announcement) end
      redis.call('PEXPIRE', KEYS[i], ARGV[at + 3])
    end
    results[i] = 1
  end
end
return results
