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
local results, at, bytes = {}, 5, tonumber(ARGV[4])
for i = 1, #KEYS / 2 - 1 do
  if bytes <= 0 then break end
  local stream, record = KEYS[2 * i + 1], KEYS[2 * i + 2]
  local known, size = outstanding(KEYS[1], KEYS[2], stream)
  bytes = bytes - (size or 0)
  local stored = redis.pcall('HMGET', record, 'fence')
  local length = redis.pcall('XLEN', stream)
  local listed = redis.pcall('XLEN', KEYS[1])
  local problem = type(known) == 'table' and known.err or stored.err
    or type(length) == 'table' and length.err or type(listed) == 'table' and listed.err
  if problem then
    results[i] = {'error', problem}
    local count = tonumber(ARGV[at + 1])
    at = at + 2
    for _ = 1, count do at = at + 2 + tonumber(ARGV[at + 1]) end
  else
    local payload, ids, there = ARGV[at], nil, nil
    ids, there, at = append(stream, ARGV[2], at + 1)
    if there and not known then
      local id = redis.pcall('XADD', KEYS[1], '*', ARGV[3], payload)
      local kept = type(id) == 'string' and redis.pcall('HSET', KEYS[2], stream, id)
      problem = type(id) == 'table' and id.err or type(kept) == 'table' and kept.err
        or wake(record, stored[1], length > 0, ids[1], ARGV[1])
      if problem then
        table.insert(ids, 1, problem)
        table.insert(ids, 1, 'but')
      end
    end
    results[i] = ids
  end
end
return results
