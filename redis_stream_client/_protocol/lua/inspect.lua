-- inspect: who owns these entries, and do they still exist? The record of one that was trimmed or deleted
-- while pending is cleaned up.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   2 bytes of announcements after which to stop: to see that one exists Redis must read it
--       then ids
-- Returns for each id the owner's name, or '' if it is pending for nobody or exists no more; for the first ones only
--         when it stopped before the end.
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
