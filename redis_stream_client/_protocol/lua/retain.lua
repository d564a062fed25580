-- retain: what stays of data streams, and of their records. Each is touched only under the fence of the owner that
-- asks: once a newer owner has begun, nothing is. No entry goes that this owner has not processed.
--
-- KEYS  for each stream: its progress record; the data stream, in the same slot
-- ARGV  for each stream: fence; consumer;
--       'keep' the stream; 'trim' it up to the checkpoint that is stored; or 'delete' it with its record, unless
--       entries came after the last one that was handed out: then it is trimmed up to that one;
--       id of the last entry that was handed out (0-0: none was), for 'delete', else '';
--       entries added to the stream up to it, or '' if that is not known;
--       lifetime of a record that stays, in ms, 0: it is deleted, or '' to leave it as it is; for 'delete', of a
--       record that says nothing but that the stream was put to sleep (see doze), or '' for none
-- Returns for each {'kept'}, {'deleted'}
--                  {'trimmed', entries that were}
--                  {'more', entries that were trimmed}  and nothing else was done: ask again
--                  {'newer', entries that were trimmed} it was to be deleted, and entries came after
--                  {'other'}                            it was to be deleted, and is not the stream that was read:
--                                                       its greatest id is smaller, so Redis has lost writes
--                  {'refused'}                          the record is another owner's, or not there
--                  {'error', message}
-- A repeat changes nothing more. A record that is not there is no obstacle where nothing was handed out: whoever has
-- begun has a record, and an empty stream may go.
--#include after
local WORDS = 6
local AT_ONCE = 100000 -- entries that one call trims, or half as many more: about 5 ms of Redis
local LARGEST = '18446744073709551615'
--#include later
local function one_more(number)
  local nines = string.match(number, '9*$')
  local head = string.sub(number, 1, #number - #nines)
  if head == '' then return '1' .. string.rep('0', #nines) end
  return string.sub(head, 1, -2) .. tonumber(string.sub(head, -1)) + 1 .. string.rep('0', #nines)
end
local function next_to(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq == LARGEST then return ms == LARGEST and id or one_more(ms) .. '-0' end -- behind the last one there is none
  return ms .. '-' .. one_more(seq)
end
local left = AT_ONCE
local function trim(i, id) -- up to this entry; whole nodes first, of which a number can be given
  if left < AT_ONCE / 2 then return {'more', 0} end
  local from = next_to(id)
  local trimmed = redis.pcall('XTRIM', KEYS[i], 'MINID', '~', from, 'LIMIT', left)
  if type(trimmed) == 'table' then return {'error', trimmed.err} end
  left = left - trimmed
  if left < AT_ONCE / 2 then return {'more', trimmed} end
  return {'trimmed', trimmed + redis.call('XTRIM', KEYS[i], 'MINID', '=', from)}
end
local function last_of(i) -- greatest id that the stream ever had, or nil
  local info = redis.pcall('XINFO', 'STREAM', KEYS[i])
  for j = 1, info.err and 0 or #info, 2 do
    if info[j] == 'last-generated-id' then return info[j + 1] end
  end
end
local function delete(i, upto, added, stored, lifetime)
  local after = entries_after(KEYS[i + 1], upto, 1)
  if after.err then return {'error', after.err} end
  local last = last_of(i + 1)
  if last and later(upto, last) then return {'other'} end
  if not after[1] then
    local gone = redis.pcall('UNLINK', KEYS[i + 1])
    if type(gone) == 'table' then return {'error', gone.err} end
    redis.call('DEL', KEYS[i])
    if lifetime ~= '' and stored[4] then -- without room for it, a producer must live to announce what it adds
      redis.pcall('HSET', KEYS[i], 'fence', stored[1], 'consumer', stored[2], 'asleep', stored[4], 'added', 0)
      redis.call('PEXPIRE', KEYS[i], lifetime)
    end
    return {'deleted'}
  end
  if upto == '0-0' then return {'newer', 0} end
  local result = trim(i + 1, upto)
  if result[1] ~= 'trimmed' then return result end
  if later(upto, string.match(stored[3] or '', '^%d+-%d+$') or '0-0') then
    redis.call('HSET', KEYS[i], 'checkpoint', upto, 'added', added)
  end
  return {'newer', result[2]}
end
local results = {}
for i = 1, #KEYS, 2 do
  local at = (i - 1) / 2 * WORDS
  local what, upto, lifetime = ARGV[at + 3], ARGV[at + 4], ARGV[at + 6]
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'asleep')
  local result = {'kept'}
  if stored.err then
    result = {'error', stored.err}
  elseif (stored[1] ~= ARGV[at + 1] or stored[2] ~= ARGV[at + 2]) and (stored[1] or upto ~= '0-0') then
    result = {'refused'}
  elseif what == 'delete' then
    result = delete(i, upto, ARGV[at + 5], stored, lifetime)
  elseif what == 'trim' and string.match(stored[3] or '', '^%d+-%d+$') then
    result = trim(i + 1, stored[3])
  end
  if result[1] == 'kept' or result[1] == 'trimmed' then
    if lifetime == '0' then
      redis.call('DEL', KEYS[i])
    elseif lifetime ~= '' then
      redis.call('PEXPIRE', KEYS[i], lifetime)
    end
  end
  results[#results + 1] = result
end
return results
