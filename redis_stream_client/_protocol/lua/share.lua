-- share: read waiting announcements, but no more than brings this consumer level with the live members that have room,
-- by weight. XREADGROUP alone would give a burst to the first consumer that asks.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   then the locks of the group's other consumers
-- ARGV  1 group   2 consumer   3 the most to read   4 bytes of announcements after which to stop
--       5 1: leave to the others what is theirs; 0: take a share of what is left, because they had their chance
--       then the other consumers, in the order of their locks in KEYS
-- Returns {'lapsed'}, or {number of entries that still wait, live members, the entries as XREADGROUP returns them,
--         1 if the weights differ and this consumer has its share, though one more entry should arrive; else 0}
local SMALL = 65536 -- bytes that an announcement is taken to have at first
local PIECE = 16 -- read at once; what is read is ours, so it may exceed the bytes by no more than this
--#include shares
local weight = holder_of(KEYS[2])
if not weight then return {'lapsed'} end
local lock_of = {}
for i = 6, #ARGV do lock_of[ARGV[i]] = KEYS[i - 3] end
local all, mine, members, weights, others, differ = 0, 0, 1, weight, {}, false
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending = info[2], info[4]
  all = all + pending
  if name == ARGV[2] then
    mine = pending
  elseif lock_of[name] then
    local its_weight, limit = holder_of(lock_of[name])
    if its_weight then members = members + 1 end
    if its_weight and pending < limit then
      others[#others + 1] = {pending, its_weight}
      weights, differ = weights + its_weight, differ or its_weight ~= weight
    end
  end
end
-- What was delivered is pending until it is acknowledged and deleted, so the rest is what waits.
local waiting = math.max(0, redis.call('XLEN', KEYS[1]) - all)
local want, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
if members > 1 then
  local share = math.ceil(waiting * weight / weights - ROUNDING)
  if ARGV[5] == '1' then share = level(waiting, mine, weight, others) end
  want = math.min(want, share)
end
local entries, largest, seen, ended = {}, SMALL, 0, false
while #entries < want and bytes > 0 and not ended do
  local piece = math.max(1, math.min(want - #entries, PIECE, math.floor(bytes / math.max(1, largest))))
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', piece, 'STREAMS', KEYS[1], '>')
  local got = reply and reply[1] and reply[1][2] or {}
  for _, entry in ipairs(got) do
    local size = 0
    for _, word in ipairs(entry[2] or {}) do size = size + #word end
    seen, bytes = math.max(seen, size), bytes - size
    entries[#entries + 1] = entry
  end
  largest = seen
  ended = #got < piece
end
waiting = ended and 0 or math.max(0, waiting - #entries)
local satisfied = differ and level(waiting + 1, mine + #entries, weight, others) <= 0 and 1 or 0
if bytes <= 0 and not ended then waiting = math.max(1, waiting) end -- it is not known, so look again
return {waiting, members, entries, satisfied}
