-- share: read waiting announcements, but no more than brings this consumer level with the live members.
-- XREADGROUP alone would give a burst to the first consumer that asks.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   then the locks of the group's other consumers
-- ARGV  1 group   2 consumer   3 the most to read   4 bytes of announcements after which to stop
--       5 1: leave to the others what is theirs; 0: take a share of what is left, because they had their chance
--       then the other consumers, in the order of their locks in KEYS
-- Returns {'lapsed'}, or {number of entries that still wait, live members, the entries as XREADGROUP returns them}
local SMALL = 65536 -- bytes that an announcement is taken to have at first
local PIECE = 16 -- read at once; what is read is ours, so it may exceed the bytes by no more than this
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
local lock_of = {}
for i = 6, #ARGV do lock_of[ARGV[i]] = KEYS[i - 3] end
local held, all, mine, members = 0, 0, 0, 1
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local name, pending = info[2], info[4]
  all = all + pending
  if name == ARGV[2] then
    mine, held = pending, held + pending
  elseif lock_of[name] and redis.call('EXISTS', lock_of[name]) == 1 then
    members, held = members + 1, held + pending
  end
end
-- What was delivered is pending until it is acknowledged and deleted, so the rest is what waits.
local waiting = math.max(0, redis.call('XLEN', KEYS[1]) - all)
local want, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
if members > 1 then
  local share = math.ceil(waiting / members)
  if ARGV[5] == '1' then share = math.ceil((held + waiting) / members) - mine end
  want = math.min(want, share)
end
local entries, largest, seen = {}, SMALL, 0
while #entries < want and bytes > 0 do
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
  if #got < piece then return {0, members, entries} end -- that was all
end
waiting = waiting - #entries
if bytes <= 0 then waiting = math.max(1, waiting) end -- it is not known, so look again
return {math.max(0, waiting), members, entries}
