-- look: find out which consumers live. It also makes Redis notice, and announce, a lock that has expired.
--
-- KEYS  locks; turns are looked at in the same way
-- ARGV  1 lifetime in ms: a lock that would live longer than this, and longer than its holder wanted, is shortened;
--         the server's clock may have been set back   2 1: return the values of the locks, too
-- Returns for each lock 1 if it exists, else 0; or its value, if that was asked for, and '' if it is no string.
local alive, longest, read = {}, tonumber(ARGV[1]), ARGV[2] == '1'
for i, lock in ipairs(KEYS) do
  local left = redis.call('PTTL', lock) -- -2: it does not exist; -1: it would live for ever
  local too_long, said = left > longest or left == -1, nil
  if left ~= -2 and (too_long or read) then
    said = redis.pcall('GET', lock) -- an error for what is no string, so none of ours: it stays as it is
  end
  if too_long then
    local ttl = type(said) == 'string' and tonumber(string.match(said, '"ttl": *(%d+)'))
    if ttl and (left > ttl or left == -1) then redis.call('PEXPIRE', lock, ttl) end
  end
  alive[i] = left == -2 and 0 or read and (type(said) == 'string' and said or '') or 1
end
return alive
