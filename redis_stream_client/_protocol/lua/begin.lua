-- begin: a new owner takes over the records of its data streams' progress, before its first read. From then on
-- every older owner is refused.
--
-- KEYS  progress records, hashes of fence, consumer, checkpoint and attempts; of a stream in trouble also failures
--       (how often a handler failed since the last progress), failing (since when, in ms of this server's clock),
--       failed (whose failure was the last: its fence, or the announcement's part of it, and the checkpoint, with a
--       space between), error (what that was), began (when the newest owner began after others had died; empty once it
--       is known how that ended) and lived (for how many ms an owner that died had lived with it at the most);
--       over, failed is empty, and none of these count. asleep: see doze. since: the
--       entry that woke a stream whose record had expired, or '-' where that is not known; a producer leaves it, where
--       there is no record
-- ARGV  for each record: fence; consumer; 1 to leave a stream without a record alone, else 0;
--       owners before this one that left no record; the fence and the consumer of a record that may be replaced
--       although its fence is greater ('' and '' for none); with how many deaths of owners before this one it may
--       begin at the most ('' for any number); 1 if its death, should it die, was a trial, else 0; a fence of this
--       consumer ('' for none): it has lived through the ends of all leases that it had from that one on, so
--       whichever of them began last has not died, unless a peer has taken it for dead; with '*' behind it, the fence of
--       whoever had the stream before, and has given it back, or had it taken away; 1 if a stream without a
--       checkpoint whose record had expired starts with the entry that woke it, 0 if it starts at its start
-- Returns for each {'begun', checkpoint or '', attempts, entries added to the stream up to the checkpoint or '',
--                  the entry that woke the stream, if nothing of it was processed since, or ''}, and of a stream in
--                  trouble also: failures, for how many ms it has been failing, error or '', and lived or -1
--                  {'suspect', deaths, failures, ms, error, lived} there were more deaths than that; it is not theirs
--                  {'fresh'}                          there is no record, and none was wanted
--                  {'refused', its fence, its consumer}
--                  {'foreign', field, what it holds}  not written by this library: whose it is cannot be told
--                  {'error', message}                 nothing was changed
-- A repeat by the same owner is accepted and changes nothing. Attempts and failures at an earlier announcement do not
-- count, nor do failures at an earlier checkpoint: a version that does not know them leaves them where they are.
-- Fences are compared by their numbers: of two that differ in the holder alone neither is known to be older.
local WORDS = 10
local LBS_ID = 41 -- characters of a fence that name the announcement
local NUMBERS = 62 -- characters of a fence that are compared: with the delivery count, and without the holder
local HOLDER = 26 -- characters that may follow
local LARGEST = '18446744073709551615'
local LARGEST_COUNT = '00000999999999999999' -- Lua's numbers are exact, and Redis can count on
local SHOWN = 100 -- characters of something foreign
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function is_fence(text)
  if #text ~= NUMBERS and #text ~= NUMBERS + HOLDER then return false end
  local ms, seq, count = string.match(string.sub(text, 1, NUMBERS), '^(%d+)%-(%d+)%-(%d+)$')
  if not ms or #ms ~= 20 or #seq ~= 20 or ms > LARGEST or seq > LARGEST or count > LARGEST_COUNT then return false end
  local since, by = string.match(string.sub(text, NUMBERS + 1), '^%-(%d+)%-([0-9a-f]+)$')
  return #text == NUMBERS or since and #since == 16 and #by == 8
end
local function is_number(text)
  return (text == '0' or string.sub(text, 1, 1) ~= '0') and (#text < 20 or #text == 20 and text <= LARGEST)
end
local function is_id(text)
  local ms, seq = string.match(text, '^(%d+)%-(%d+)$')
  return ms and is_number(ms) and is_number(seq)
end
local function count(text) -- whatever else stands there counts none
  return text and #text < 10 and string.match(text, '^%d+$') and tonumber(text) or 0
end
local function since(text) -- a time in ms
  return text and #text < 16 and string.match(text, '^%d+$') and tonumber(text) or now
end
local function just_before(id) -- the greatest id that is smaller; nil: there is none
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  local function one_less(number) -- of a decimal number of up to 64 bits, which Lua's numbers cannot hold
    local head, digit, zeros = string.match(number, '^(%d*)([1-9])(0*)$')
    local less = head .. (digit - 1) .. string.rep('9', #zeros)
    return #less > 1 and string.gsub(less, '^0', '') or less
  end
  if seq ~= '0' then return ms .. '-' .. one_less(seq) end
  return ms ~= '0' and one_less(ms) .. '-' .. LARGEST or nil
end
local function append(list, ...)
  for j = 1, select('#', ...) do list[#list + 1] = select(j, ...) end
end
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local fence, me, most = ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 7])
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'attempts', 'added', 'failed',
    'since')
  local theirs, checkpoint, failed = stored[1], stored[3], stored[6]
  local from = stored[7] and is_id(stored[7]) and just_before(stored[7])
  local woken_by = from and (checkpoint or from) == from and stored[7] or ''
  if stored.err then
    results[i] = {'error', stored.err}
  elseif theirs and not is_fence(theirs) then
    results[i] = {'foreign', 'fence', string.sub(theirs, 1, SHOWN)}
  elseif checkpoint and not is_id(checkpoint) then
    results[i] = {'foreign', 'checkpoint', string.sub(checkpoint, 1, SHOWN)}
  elseif not theirs and ARGV[at + 3] == '1' then
    results[i] = {'fresh'}
  else
    local mine = theirs == fence and stored[2] == me
    local older = theirs and string.sub(theirs, 1, NUMBERS) < string.sub(fence, 1, NUMBERS)
    local replaceable = theirs == ARGV[at + 5] and (stored[2] or '') == ARGV[at + 6]
    if not theirs or older or mine or replaceable then
      local announcement = string.sub(fence, 1, LBS_ID)
      local before = ARGV[at + 4]
      if theirs and string.sub(theirs, 1, LBS_ID) == announcement then before = stored[4] end
      before = count(before)
      local alive = ARGV[at + 9]
      local lived_on = alive ~= '' and older and (stored[2] == me or string.sub(alive, -1) == '*')
        and string.sub(theirs, 1, NUMBERS) >= string.sub(alive, 1, NUMBERS)
      local known = failed and string.sub(failed, 1, LBS_ID) == announcement
        and string.match(failed, ' (.*)$') == (checkpoint or '')
      local trouble = known and redis.call('HMGET', KEYS[i], 'failures', 'failing', 'error', 'began', 'lived', 'trials')
      local mark = lived_on and theirs .. ' ' .. (checkpoint or '') -- as in fail: its attempt was taken out
      local mourned = known and before > 1 and trouble[4] == '' -- a peer that took it for dead has counted it
      local spared = lived_on and before > 0 and failed ~= mark and not mourned
      if spared then before = before - 1 end
      local failures, failing, error, lived, trials, died = 0, now, '', -1, 0, false
      if known then
        failures, failing, error = count(trouble[1]), since(trouble[2]), trouble[3] or ''
        if before > 0 then -- where no deaths count, what they left does not either
          lived = trouble[5] and trouble[5] ~= '' and count(trouble[5]) or -1
          trials = count(trouble[6])
        end
        local began = not mine and not spared and before > 0 and string.match(trouble[4] or '', '^%d+')
        died = began and #began < 16
        if died then
          lived = math.min(999999999, math.max(lived, now - began))
          if string.sub(trouble[4], -1) == '!' then trials = trials + 1 end
        end
      end
      local failing_for = math.max(0, now - failing)
      if most and not mine and before > most then
        if died then redis.pcall('HSET', KEYS[i], 'began', '', 'lived', lived, 'trials', trials) end
        if spared then -- whoever begins knows it then, and a repeat does not spare another one
          redis.pcall('HSET', KEYS[i], 'attempts', before, 'failed', mark, 'began', '', 'failures', failures,
            'failing', failing, 'error', error)
        end
        results[i] = {'suspect', before, failures, failing_for, error, lived, trials}
      else
        local attempts = before + (mine and 0 or 1)
        local added = (theirs or woken_by ~= '') and (stored[5] or '') or '0'
        local fields = {'fence', fence, 'consumer', me, 'attempts', attempts}
        if not checkpoint and woken_by ~= '' and ARGV[at + 10] == '1' then
          checkpoint = from
          append(fields, 'checkpoint', checkpoint)
          if known then append(fields, 'failed', failed .. checkpoint) end
        end
        if string.sub(added, -1) == '!' and not mine then -- from here on entries may be read that have no checkpoint
          append(fields, 'added', string.sub(added, 1, -2))
        end
        local troubled = known or attempts > 1
        if troubled and not known then
          append(fields, 'failing', now, 'failed', announcement .. ' ' .. (checkpoint or ''))
          if failed then append(fields, 'failures', 0, 'error', '') end -- else there are none yet
        elseif not troubled and failed and failed ~= '' then
          append(fields, 'failures', 0, 'failing', '', 'failed', '', 'error', '')
        end
        if attempts > 1 and not mine then
          append(fields, 'began', now .. (ARGV[at + 8] == '1' and '!' or ''))
          if failed then append(fields, 'lived', lived >= 0 and lived or '', 'trials', trials) end
        elseif known and before == 0 then
          append(fields, 'began', '', 'lived', '', 'trials', 0)
        end
        local written = redis.pcall('HSET', KEYS[i], unpack(fields))
        if type(written) == 'table' and written.err then
          results[i] = {'error', written.err}
        else
          if not mine then redis.call('PERSIST', KEYS[i]) end -- a late repeat: the owner may have ended meanwhile
          if stored[7] and woken_by == '' then redis.call('HDEL', KEYS[i], 'since') end
          results[i] = {'begun', checkpoint or '', attempts, added, woken_by}
          if troubled then append(results[i], failures, failing_for, error, lived, trials) end
        end
      end
    else
      results[i] = {'refused', theirs, stored[2] or ''}
    end
  end
end
return results
