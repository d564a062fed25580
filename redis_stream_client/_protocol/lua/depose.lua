-- depose: delete the locks of members that declared their presence on this very server and have no subscription any
-- more, so that peers can claim all that is pending for them at once. It compares everything again.
--
-- KEYS  1 this consumer's lock   2 the present (hash, as in present.lua)   then the locks of those to depose
-- ARGV  1 consumer   2 what stands before a consumer's name in its channel   3 nonce of its own declaration
--       4 control channel   then, in the order of their locks, name and declaration of each: one that has declared
--         anew meanwhile stays
-- Returns the names of those that were deposed; {} also if this consumer is not present itself.
-- Hint  deposed <consumer>
-- Hint  dead <consumer>
local prefix = ARGV[2]
local function seen(consumer) return redis.call('PUBSUB', 'NUMSUB', prefix .. consumer)[2] > 0 end
if redis.call('EXISTS', KEYS[1]) == 0 or not seen(ARGV[1]) then return {} end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local mine = redis.call('HGET', KEYS[2], ARGV[1]) or ''
if string.match(mine, '^%x+') ~= run_id or string.match(mine, '%S+$') ~= ARGV[3] then return {} end
local deposed = {}
for i = 5, #ARGV, 2 do
  local name, declaration, lock = ARGV[i], ARGV[i + 1], KEYS[(i + 1) / 2]
  if redis.call('HGET', KEYS[2], name) == declaration and string.match(declaration, '^%x+') == run_id
    and not seen(name) then
    redis.call('HDEL', KEYS[2], name)
    if redis.call('DEL', lock) == 1 then
      redis.call('PUBLISH', ARGV[4], 'deposed ' .. name) -- before what makes peers claim
      redis.call('PUBLISH', ARGV[4], 'dead ' .. name)
      deposed[#deposed + 1] = name
    end
  end
end
return deposed
