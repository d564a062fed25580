-- write: put the effect of a data stream's entry into the ledger, as a user's own database would. Of two fences the
-- greater is the newer owner's; no two owners have the same.
--
-- KEYS  1 what was accepted last for the data stream (hash of fence and id)   2 the ledger (stream)
--       3 there while the ledger is away
-- ARGV  1 member   2 lease   3 data stream   4 fence   5 id of the entry   6 1: it is the end marker
-- Returns 'accepted'; 'repeated': an earlier owner wrote it, and could not say so any more; 'refused': too late;
-- 'away': nothing was written
if redis.call('EXISTS', KEYS[3]) == 1 then
  return 'away'
end
local function later(id, than) -- milliseconds and sequence are small enough for Lua's numbers
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local than_ms, than_seq = string.match(than, '^(%d+)-(%d+)$')
  ms, seq, than_ms, than_seq = tonumber(ms), tonumber(seq), tonumber(than_ms), tonumber(than_seq)
  return ms > than_ms or ms == than_ms and seq > than_seq
end
local last = redis.call('HMGET', KEYS[1], 'fence', 'id')
local outcome = 'accepted'
if last[1] and last[1] > ARGV[4] then
  outcome = 'refused'
else
  redis.call('HSET', KEYS[1], 'fence', ARGV[4])
  if last[2] and not later(ARGV[5], last[2]) then
    outcome = 'repeated'
  else
    redis.call('HSET', KEYS[1], 'id', ARGV[5])
  end
end
redis.call('XADD', KEYS[2], '*', 'member', ARGV[1], 'lease', ARGV[2], 'stream', ARGV[3], 'fence', ARGV[4],
  'id', ARGV[5], 'outcome', outcome, 'end', ARGV[6])
return outcome
