-- inspect: find the owners of entries, and whether the entries still exist. If one was trimmed or deleted while it was
-- pending, it is pending no more afterwards.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 bytes of announcements after which to stop: to see that an entry exists, Redis must read it
--       then ids
-- Returns for each id the name of the owner, or '' if the entry is not pending or does not exist. If it stops early,
--         there are results for the first ids only.
local owners, bytes = {}, tonumber(ARGV[2])
for i = 3, #ARGV do
  if bytes <= 0 then break end
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local owner = pending and pending[2] or ''
  if pending then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      for _, word in ipairs(entry[2]) do bytes = bytes - #word end
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      owner = ''
    end
  end
  owners[#owners + 1] = owner
end
return owners
