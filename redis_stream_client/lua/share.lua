-- share: read announcements that wait, but no more than brings this consumer level with the live members.
-- XREADGROUP alone gives a burst to whoever asks first.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   then the locks of the group's other consumers
-- ARGV  1 group   2 consumer   3 most to read   4 1: be patient, leave to the others what is theirs;
--       0: take a share of what is left, they had their chance   then the other consumers, in KEYS' order
-- Returns {'lapsed'}, or {how many wait still, live members, XREADGROUP's entries}
if redis.call('EXISTS', KEYS[2]) == 0 then return {'lapsed'} end
local lock_of = {}
for i = 5, #ARGV do lock_of[ARGV[i]] = KEYS[i - 2] end
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
local want = tonumber(ARGV[3])
if members > 1 then
  local share = math.ceil(waiting / members)
  if ARGV[4] == '1' then share = math.ceil((held + waiting) / members) - mine end
  want = math.min(want, share)
end
if want < 1 then return {waiting, members, {}} end
local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', want, 'STREAMS', KEYS[1], '>')
local entries = reply and reply[1] and reply[1][2] or {}
if #entries < want then waiting = 0 else waiting = math.max(0, waiting - #entries) end
return {waiting, members, entries}
