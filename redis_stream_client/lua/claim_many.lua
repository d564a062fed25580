-- claim_many: take up to n pending entries of one dead owner, if wanted no more than brings this consumer level with
-- its live peers, so that they split what a dead one left whoever of them asks first. A repeat takes more: after a
-- lost reply, audit before the next call.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 the owner's lock   then the locks of the other consumers
-- ARGV  1 group   2 consumer   3 owner   4 n   5 control channel   6 1: no more than our share, 0: what is there
--       7 number of entries to leave alone   then their ids   then the other consumers, in KEYS' order
-- Returns {'won', entries left with the owner, {id, delivery count, fields}, ...}   as many as were there
--         {'alive', owner}                             the owner's lock exists
--         {'lapsed'}                                   this consumer's own lock does not exist
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
if redis.call('EXISTS', KEYS[3]) == 1 then return {'alive', ARGV[3]} end
local want, skips = tonumber(ARGV[4]), tonumber(ARGV[7])
local skip, lock_of = {}, {}
for i = 8, 7 + skips do skip[ARGV[i]] = true end
for i = 8 + skips, #ARGV do lock_of[ARGV[i]] = KEYS[i - skips - 4] end
local orphans, held, mine, members = 0, 0, 0, 1
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending = info[2], info[4]
  if name == ARGV[3] then
    orphans = pending
  elseif name == ARGV[2] then
    mine, held = pending, held + pending
  elseif lock_of[name] and redis.call('EXISTS', lock_of[name]) == 1 then
    members, held = members + 1, held + pending
  end
end
if ARGV[6] == '1' then want = math.min(want, math.ceil((held + orphans) / members) - mine) end
local won = {'won', orphans}
local ids = {}
if want > 0 then
  for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', want + skips, ARGV[3])) do
    local id = pending[1]
    if #ids < want and not skip[id] then
      local entry = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id)[1]
      if entry then
        won[#won + 1] = {id, pending[4] + 1, entry[2]}
        ids[#ids + 1] = id
      else -- trimmed while pending
        redis.call('XACK', KEYS[1], ARGV[1], id)
        won[2] = won[2] - 1
      end
    end
  end
end
won[2] = won[2] - #ids
if #ids > 0 then redis.call('PUBLISH', ARGV[5], 'claimed ' .. table.concat(ids, ' ')) end
return won
