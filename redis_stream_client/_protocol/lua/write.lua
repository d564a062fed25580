-- write: add entries to data streams, and announce each unless an announcement of it is outstanding, in one step. For
-- data streams on the server of the load balancer stream; in a Cluster, in its slot.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
--       then, for each stream: data stream, progress record, a hash
-- ARGV  1 ms that a note stays which wakes a stream without a record   2 about how many entries to keep, '' for all
--       3 the announcements' field   4 bytes of announcements after which to stop: to see that one is outstanding,
--       Redis must read it
--       then, for each stream: the announcement; the number of entries; for each entry: id or '*', the number of words,
--       names and values
-- Returns for each stream {id, ...}, with {message} for an entry that Redis refuses; or {'error', message}: nothing was
--         changed; or {'but', message, id, ...}: the entries are there, but the hash or the record could not be written.
--         If it stops early, there are results for the first streams only.
--#include outstanding
--#include append
local function padded(id) -- as fences begin with it
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq
end
local results, at, bytes = {}, 5, tonumber(ARGV[4])
for i = 1, #KEYS / 2 - 1 do
  if bytes <= 0 then break end
  local known, size = outstanding(KEYS[1], KEYS[2], KEYS[2 * i + 1])
  bytes = bytes - (size or 0)
  local stored = redis.pcall('HMGET', KEYS[2 * i + 2], 'fence', 'asleep', 'since')
  local length = redis.pcall('XLEN', KEYS[2 * i + 1])
  local listed = redis.pcall('XLEN', KEYS[1])
  local problem = type(known) == 'table' and known.err or stored.err
    or type(length) == 'table' and length.err or type(listed) == 'table' and listed.err
  if problem then
    results[i], at = {'error', problem}, skip(at + 1)
  else
    local payload, ids, there, elsewhere = ARGV[at], nil, nil, nil
    ids, there, at, elsewhere = append(KEYS[2 * i + 1], ARGV[2], at + 1)
    if elsewhere then return elsewhere end
    if known and stored[2] and stored[2] >= padded(known) then known = nil end -- its owner does not look any more
    if there and not known then
      local id = redis.pcall('XADD', KEYS[1], '*', ARGV[3], payload)
      local kept = type(id) == 'string' and redis.pcall('HSET', KEYS[2], KEYS[2 * i + 1], id)
      problem = type(id) == 'table' and id.err or type(kept) == 'table' and kept.err
        or wake(KEYS[2 * i + 2], stored[1], stored[3], length > 0, ids[1], ARGV[1], true)
    end
    results[i] = with(problem, ids)
  end
end
return results
