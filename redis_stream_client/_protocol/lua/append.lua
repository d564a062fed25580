-- append: add entries to data streams that are announced already, where the load balancer stream is in another slot.
-- Whoever announced a stream and finds it asleep must announce it again, and then repeat this: its owner may have looked
-- for entries a moment ago, and not look again.
--
-- KEYS  for each stream: data stream, progress record, a hash
-- ARGV  1 ms that a note stays which wakes a stream without a record   2 about how many entries to keep, '' for all
--       then, for each stream: the part of a fence that names its announcement; the fence of an owner that is known to
--       have put the stream to sleep before this announcement was made ('' for none); 1 if this announcement wakes it,
--       else 0; the number of entries; for each entry: id or '*', the number of words, names and values
-- Returns for each stream {id, ...}, with {message} for an entry that Redis refuses; or {'asleep', fence}; or
--         {'error', message}: nothing was changed; or {'but', message, id, ...}: the entries are there, but the record
--         could not be written
--#include append
local LBS_ID = 41 -- characters of a fence that name the announcement
local results, at = {}, 3
for i = 1, #KEYS / 2 do
  local stream, record = KEYS[2 * i - 1], KEYS[2 * i]
  local announcement, known, wakes = ARGV[at], ARGV[at + 1], ARGV[at + 2] == '1'
  local stored = redis.pcall('HMGET', record, 'fence', 'asleep')
  local length = redis.pcall('XLEN', stream)
  local problem = stored.err or type(length) == 'table' and length.err
  local fence = stored[1]
  if problem then
    results[i] = {'error', problem}
  elseif stored[2] == '1' and fence and fence ~= known and string.sub(fence, 1, LBS_ID) >= announcement then
    results[i] = {'asleep', fence}
  end
  if results[i] then
    local count = tonumber(ARGV[at + 3])
    at = at + 4
    for _ = 1, count do at = at + 2 + tonumber(ARGV[at + 1]) end
  else
    local ids, there
    ids, there, at = append(stream, ARGV[2], at + 3)
    if there and wakes then
      problem = wake(record, fence, length > 0, ids[1], ARGV[1])
      if problem then
        table.insert(ids, 1, problem)
        table.insert(ids, 1, 'but')
      end
    end
    results[i] = ids
  end
end
return results
