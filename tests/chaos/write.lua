-- write: put the effect of a data stream's entry into the ledger, as a user's own database would. Of two fences the
-- greater is the newer owner's. Under the same fence only the same consumer may write: after a fail-over that lost a
-- claim, Redis may hand the same fence to another.
--
-- KEYS  1 what was accepted last for the data stream (hash of fence, consumer and id)   2 the ledger (stream)
--       3 there while the ledger is away
-- ARGV  1 member   2 lease   3 data stream   4 fence   5 consumer   6 id of the entry   7 1: it is the end marker
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
local last = redis.call('HMGET', KEYS[1], 'fence', 'consumer', 'id')
local outcome = 'accepted'
if last[1] and (last[1] > ARGV[4] or last[1] == ARGV[4] and last[2] ~= ARGV[5]) then
  outcome = 'refused'
else
  redis.call('HSET', KEYS[1], 'fence', ARGV[4], 'consumer', ARGV[5])
  if last[3] and not later(ARGV[6], last[3]) then
    outcome = 'repeated'
  else
    redis.call('HSET', KEYS[1], 'id', ARGV[6])
  end
end
redis.call('XADD', KEYS[2], '*', 'member', ARGV[1], 'lease', ARGV[2], 'stream', ARGV[3], 'fence', ARGV[4],
  'id', ARGV[6], 'outcome', outcome, 'end', ARGV[7])
return outcome
