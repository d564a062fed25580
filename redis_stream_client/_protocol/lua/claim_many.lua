-- claim_many: take up to n pending entries of one dead owner. On request, take no more than brings this consumer level
-- with its live peers that have room, by weight. So they share the streams of the dead owner, whichever asks first.
-- A repeated call takes more. So after a lost reply, audit before the next call.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 the owner's lock   then the locks of the other consumers
-- ARGV  1 group   2 consumer   3 owner   4 n   5 bytes of announcements after which to stop   6 control channel
--       7 1: no more than our share, 0: all that is there   8 number of entries to leave alone   then their ids
--       then the other consumers, in the order of their locks in KEYS
-- Returns {'won', entries left with the owner, 1 if it stopped before it had as many as it wanted or had seen all,
--          {id, delivery count, fields, ms since it was delivered or released}, ...}
--         {'alive', owner}                             the owner's lock exists
--         {'lapsed'}                                   this consumer's own lock does not exist
-- Hint  claimed <id> <id> ...
local LOOKED = 500 -- entries that one call looks at: those that were trimmed are cleaned up, and bring nothing
local PAGE = 100
--#include greatest
--#include shares
local weight = holder_of(KEYS[2])
if not weight then return {'lapsed'} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'alive', ARGV[3]} end
local want, bytes, skips = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[8])
local skip, lock_of = {}, {}
for i = 9, 8 + skips do skip[ARGV[i]] = true end
for i = 9 + skips, #ARGV do lock_of[ARGV[i]] = KEYS[i - skips - 5] end
local orphans, mine, others = 0, 0, {}
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending = info[2], info[4]
  if name == ARGV[3] then
    orphans = pending
  elseif name == ARGV[2] then
    mine = pending
  elseif lock_of[name] then
    local its_weight, limit = holder_of(lock_of[name])
    if its_weight and pending < limit then others[#others + 1] = {pending, its_weight} end
  end
end
if ARGV[7] == '1' then want = math.min(want, level(orphans, mine, weight, others)) end
local won, ids = {'won', orphans, 0}, {}
local from, looked, ended = '-', 0, false
while #ids < want and not ended and won[3] == 0 do
  local page = redis.call('XPENDING', KEYS[1], ARGV[1], from, '+', PAGE, ARGV[3])
  ended = #page < PAGE or page[#page][1] == GREATEST
  for i, pending in ipairs(page) do
    local id = pending[1]
    from, looked = '(' .. id, looked + 1
    if not skip[id] then
      local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
      if entry then
        won[#won + 1] = {id, pending[4] + 1, entry[2], pending[3]}
        ids[#ids + 1] = id
        for _, word in ipairs(entry[2]) do bytes = bytes - #word end
      else -- trimmed while pending
        redis.call('XACK', KEYS[1], ARGV[1], id)
        won[2] = won[2] - 1
      end
    end
    if #ids >= want then break end
    if bytes <= 0 or looked >= LOOKED then
      if i < #page or not ended then won[3] = 1 end
      break
    end
  end
end
won[2] = won[2] - #ids
if #ids > 0 then redis.call('PUBLISH', ARGV[6], 'claimed ' .. table.concat(ids, ' ')) end
return won
