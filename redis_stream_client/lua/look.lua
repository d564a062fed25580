-- look: which consumers live. Looking makes Redis notice an expired lock and announce it. A lock that would
-- live longer than its holder asked for (the server's clock was set back) is shortened.
--
-- KEYS  locks
-- Returns for each lock 1 if it exists, else 0.
local alive = {}
for i, lock in ipairs(KEYS) do
  local left = redis.call('PTTL', lock)
  alive[i] = left == -2 and 0 or 1
  if left ~= -2 then
    local ttl = tonumber(string.match(redis.call('GET', lock) or '', '"ttl": *(%d+)'))
    if ttl and (left > ttl or left == -1) then redis.call('PEXPIRE', lock, ttl) end
  end
end
return alive
