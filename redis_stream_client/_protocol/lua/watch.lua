-- watch: find out which of those that declared their presence have no subscription any more. One member watches all
-- others; the others only look whether it does, and whether this server still sees them.
--
-- KEYS  1 this consumer's lock   2 who watches (string with TTL)   3 the present (hash, as in present.lua)
-- ARGV  1 consumer   2 how long it watches from now on, ms   3 what stands before a consumer's name in its channel
--       4 nonce of its own declaration
-- Returns {'other', how many are present}: somebody else watches
--         {'watching', how many are present, then for each absent one: consumer, grace in ms, declaration}
--         {'full', the same}: Redis is full, so nobody can be noted as the one that watches
--         {'blind'}: this server does not see our own subscription
--         {'undeclared'}: our own declaration is not there
--         {'lapsed'}: this consumer's own lock does not exist
local CHUNK = 1000 -- channels that are asked for at once
local me, prefix = ARGV[1], ARGV[3]
local function mine(declaration) return string.match(declaration or '', '(%S+)$') == ARGV[4] end
if redis.call('EXISTS', KEYS[1]) == 0 then return {'lapsed'} end
local watcher = redis.pcall('GET', KEYS[2]) or me
if type(watcher) == 'table' then watcher = me end -- a key of another type: it is overwritten
local seen = redis.call('PUBSUB', 'NUMSUB', prefix .. me, prefix .. watcher)
if seen[2] == 0 then return {'blind'} end
if watcher ~= me and seen[4] > 0 then
  if not mine(redis.call('HGET', KEYS[3], me)) then return {'undeclared'} end
  return {'other', redis.call('HLEN', KEYS[3])}
end
local present = redis.call('HGETALL', KEYS[3])
local declared, absent = false, {}
for first = 1, #present, 2 * CHUNK do
  local channels = {}
  for i = first, math.min(first + 2 * CHUNK - 2, #present), 2 do
    channels[#channels + 1] = prefix .. present[i]
    if present[i] == me then declared = mine(present[i + 1]) end
  end
  local counted = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 2, #counted, 2 do
    if counted[i] == 0 then absent[#absent + 1] = first + i - 2 end
  end
end
if not declared then return {'undeclared'} end
local noted = redis.pcall('SET', KEYS[2], me, 'PX', ARGV[2])
local reply = {noted.err and 'full' or 'watching', #present / 2}
if #absent == 0 then return reply end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
for _, at in ipairs(absent) do
  local run, grace = string.match(present[at + 1], '^(%x+) (%d+) %S+$')
  if run == run_id then
    reply[#reply + 1] = present[at]
    reply[#reply + 1] = tonumber(grace)
    reply[#reply + 1] = present[at + 1]
  else -- declared before a restart or a failover: it says nothing about this server
    redis.call('HDEL', KEYS[3], present[at])
  end
end
return reply
