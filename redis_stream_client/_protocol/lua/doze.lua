-- doze: put streams to sleep, each only by the owner that has begun, and only if its stream has no entry after the
-- stored checkpoint. The mark asleep says so: announcements up to this one are over. No producer adds an entry from then
-- on because one of them is outstanding: it announces the stream again before. Nobody takes the mark back, since a
-- request that is executed late must not: an announcement too many is harmless.
--
-- KEYS  for each stream: its progress record; the data stream, in the same slot
-- ARGV  for each stream: fence; consumer
-- Returns for each {'asleep'}, {'awake'} (there is an entry), {'refused', its fence or '', its consumer or ''},
--                  {'error', message} of the record, or {'unreadable', message} of the data stream
-- A repeat by the same owner looks again. Where nothing was put to sleep, nothing was changed.
--#include after
local WORDS = 2
local LBS_ID = 41 -- characters of a fence that name the announcement
local results = {}
for i = 1, #KEYS, 2 do
  local at = (i - 1) / 2 * WORDS
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'asleep')
  local result = {'asleep'}
  if stored.err then
    result = {'error', stored.err}
  elseif stored[1] ~= ARGV[at + 1] or stored[2] ~= ARGV[at + 2] then
    result = {'refused', stored[1] or '', stored[2] or ''}
  else
    local after = entries_after(KEYS[i + 1], stored[3], 1)
    local announcement = string.sub(ARGV[at + 1], 1, LBS_ID)
    if after.err then
      result = {'unreadable', after.err}
    elseif after[1] then
      result = {'awake'}
    elseif (stored[4] or '') < announcement then
      local written = redis.pcall('HSET', KEYS[i], 'asleep', announcement)
      if type(written) == 'table' then result = {'error', written.err} end
    end
  end
  results[#results + 1] = result
end
return results
