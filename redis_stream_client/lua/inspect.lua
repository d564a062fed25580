-- inspect: whose are these entries, and do they exist still? The record of one that was trimmed or deleted
-- while pending is cleaned up.
--
-- KEYS  1 load balancer stream
-- ARGV  1 group   then ids
-- Returns for each id the owner's name, or '' if it is pending for nobody or exists no more.
local owners = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local owner = pending and pending[2] or ''
  if pending and #redis.call('XRANGE', KEYS[1], id, id) == 0 then
    redis.call('XACK', KEYS[1], ARGV[1], id)
    owner = ''
  end
  owners[#owners + 1] = owner
end
return owners
