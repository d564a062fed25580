-- settle: note that an owner has ended cleanly, so that its attempt does not count. The record of a finished stream
-- refuses older owners for a while longer, and then expires.
--
-- KEYS  progress records
-- ARGV  for each record: fence; consumer; lifetime in ms, or 0 to keep it for the next owner; 1 if every entry that was
--       read has a checkpoint, else 0: so the next owner can tell who has deleted entries that it does not find; 1 if
--       this owner goes on and has nothing left to do, so that earlier failures do not count either, else 0
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
