-- write: put the effect of a data stream's entry into the ledger, unless a newer owner has written already, or the
-- effect is there. Every attempt is noted, with what became of it.
--
-- KEYS  1 what was accepted last for the data stream (hash of fence and id)   2 the ledger (stream)
-- ARGV  1 data stream   2 fence   3 consumer   4 id of the entry   5 its number
-- Returns 'accepted'; 'repeated': an earlier owner wrote it, and could not say so any more; 'refused': too late
local function later(id, than) -- milliseconds and sequence are small enough for Lua's numbers
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local than_ms, than_seq = string.match(than, '^(%d+)-(%d+)$')
  ms, seq, than_ms, than_seq = tonumber(ms), tonumber(seq), tonumber(than_ms), tonumber(than_seq)
  return ms > than_ms or ms == than_ms and seq > than_seq
end
local last = redis.call('HMGET', KEYS[1], 'fence', 'id')
local outcome = 'accepted'
if last[1] and last[1] > ARGV[2] then
  outcome = 'refused'
elseif last[2] and not later(ARGV[4], last[2]) then
  outcome = 'repeated'
  redis.call('HSET', KEYS[1], 'fence', ARGV[2])
else
  redis.call('HSET', KEYS[1], 'fence', ARGV[2], 'id', ARGV[4])
end
redis.call('XADD', KEYS[2], '*', 'outcome', outcome,
  'stream', ARGV[1], 'fence', ARGV[2], 'consumer', ARGV[3], 'id', ARGV[4], 'number', ARGV[5])
return outcome
