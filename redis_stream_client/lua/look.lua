-- look: which consumers live. Looking makes Redis notice an expired lock and announce it.
--
-- KEYS  locks
-- ARGV  1 lifetime in ms: a lock that would live longer, and longer than its holder asked for, as when the server's
--         clock was set back, is shortened; 0 shortens none
-- Returns for each lock 1 if it exists, else 0.
local alive, longest = {}, tonumber(ARGV[1])
local all = redis.call('EXISTS', unpack(KEYS)) == #KEYS -- the usual case, in one command
for i, lock in ipairs(KEYS) do
  alive[i] = all and 1 or redis.call('EXISTS', lock)
  if longest > 0 and alive[i] == 1 then
    local left = redis.call('PTTL', lock)
    if left > longest or left == -1 then
      local ttl = tonumber(string.match(redis.call('GET', lock) or '', '"ttl": *(%d+)'))
      if ttl and (left > ttl or left == -1) then redis.call('PEXPIRE', lock, ttl) end
    end
  end
end
return alive
