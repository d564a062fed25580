-- begin: a new owner takes over the records of its data streams' progress, before its first read. From then on
-- every older owner is refused.
--
-- KEYS  progress records, hashes of fence, consumer, checkpoint and attempts
-- ARGV  for each record: fence; consumer; 1 to leave a stream without a record alone, else 0;
--       owners before this one that left no record; the fence and the consumer of a record that may be replaced
--       although its fence is greater ('' and '' for none)
-- Returns for each {'begun', checkpoint or '', attempts}
--                  {'fresh'}                          there is no record, and none was wanted
--                  {'refused', its fence, its consumer}
--                  {'error', message}                 nothing was changed
-- A repeat by the same owner is accepted and counts nothing. Attempts at an earlier announcement do not count.
local WORDS = 6
local LBS_ID = 41 -- characters of a fence that name the announcement; the rest is the delivery count
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local fence, me = ARGV[at + 1], ARGV[at + 2]
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'attempts')
  local theirs = stored[1]
  local mine = theirs == fence and stored[2] == me
  local replaceable = theirs == ARGV[at + 5] and (stored[2] or '') == ARGV[at + 6]
  if stored.err then
    results[i] = {'error', stored.err}
  elseif not theirs and ARGV[at + 3] == '1' then
    results[i] = {'fresh'}
  elseif not theirs or theirs < fence or mine or replaceable then
    local before = ARGV[at + 4]
    if theirs and string.sub(theirs, 1, LBS_ID) == string.sub(fence, 1, LBS_ID) then before = stored[4] end
    local attempts = (tonumber(before) or 0) + (mine and 0 or 1)
    local written = redis.pcall('HSET', KEYS[i], 'fence', fence, 'consumer', me, 'attempts', attempts)
    if type(written) == 'table' and written.err then
      results[i] = {'error', written.err}
    else
      redis.call('PERSIST', KEYS[i])
      results[i] = {'begun', stored[3] or '', attempts}
    end
  else
    results[i] = {'refused', theirs, stored[2] or ''}
  end
end
return results
