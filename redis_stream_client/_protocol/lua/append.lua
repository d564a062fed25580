-- append: add entries to data streams that are announced already, where the load balancer stream is in another slot.
-- Whoever counts on an announcement that is over, by the mark asleep of doze and settle, must announce the stream again
-- and repeat this: the announcement's owner does not look for entries any more.
--
-- KEYS  for each stream: data stream, progress record, a hash
-- ARGV  1 ms that a note stays which wakes a stream without a record   2 about how many entries to keep, '' for all
--       then, for each stream: its announcement, as fences begin with it; a mark that was there before the announcement
--       was made, and does not count ('' for none); 1 if this announcement wakes the stream, else 0; the number of
--       entries; for each entry: id or '*', the number of words, names and values
-- Returns for each stream {id, ...}, with {message} for an entry that Redis refuses; or {'asleep', mark} or
--         {'error', message}: nothing was changed; or {'but', message, id, ...}: the entries are there, but the record
--         could not be written
--#include append
local results, at = {}, 3
for i = 1, #KEYS / 2 do
  local announcement, before, wakes = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  local stored = redis.pcall('HMGET', KEYS[2 * i], 'fence', 'asleep', 'since')
  local length = redis.pcall('XLEN', KEYS[2 * i - 1])
  local problem = stored.err or type(length) == 'table' and length.err
  if problem then
    results[i], at = {'error', problem}, skip(at + 3)
  elseif stored[2] and stored[2] ~= before and stored[2] >= announcement then
    results[i], at = {'asleep', stored[2]}, skip(at + 3)
  else
    local ids, there, elsewhere
    ids, there, at, elsewhere = append(KEYS[2 * i - 1], ARGV[2], at + 3)
    if elsewhere then return elsewhere end
    if there then problem = wake(KEYS[2 * i], stored[1], stored[3], length > 0, ids[1], ARGV[1], wakes) end
    results[i] = with(problem, ids)
  end
end
return results
