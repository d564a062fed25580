-- settle: an owner ends cleanly, so its attempt does not count. The record of a stream that is finished goes
-- on refusing older owners for a while, and then expires.
--
-- KEYS  progress records
-- ARGV  for each record: fence; consumer; lifetime in ms, or 0 to keep it for the next owner; 1 if nothing was read
--       that has no checkpoint, else 0: the next owner can tell then who deleted what it does not find; and if
--       this owner goes on and has nothing left to do 1, else 0: earlier failures do not count then either
-- Returns for each 1 if it was this owner's, else 0.
local WORDS = 5
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'attempts', 'added', 'failed', 'failures')
  results[i] = 0
  if not stored.err and stored[1] == ARGV[at + 1] and stored[2] == ARGV[at + 2] then
    if stored[3] ~= '0' then redis.pcall('HSET', KEYS[i], 'attempts', 0) end
    if ARGV[at + 4] == '1' and stored[4] and string.match(stored[4], '^%d+$') then
      redis.pcall('HSET', KEYS[i], 'added', stored[4] .. '!')
    end
    local over = ARGV[at + 3] ~= '0' or ARGV[at + 5] == '1' or (stored[6] or '0') == '0'
    if over and stored[5] and stored[5] ~= '' then
      redis.pcall('HSET', KEYS[i], 'failures', 0, 'failing', '', 'failed', '', 'error', '')
    end
    if ARGV[at + 3] ~= '0' then redis.call('PEXPIRE', KEYS[i], ARGV[at + 3]) end
    results[i] = 1
  end
end
return results
