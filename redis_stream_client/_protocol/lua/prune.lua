-- prune: forget announcements that are not outstanding any more, one page of the hash at a time. An older version that
-- finishes one leaves it there, and so does whoever trims the load balancer stream.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 where to go on, '0' at the start   3 about how many to look at   4 bytes of announcements after which
--       to believe the rest: to see that one exists, Redis must read it, unless it is pending
-- Returns {where to go on, '0' at the end; how many were looked at; how many of them were forgotten}, or
--         {'0', 0, 0, error message}
--#include outstanding
local page = redis.pcall('HSCAN', KEYS[2], ARGV[2], 'COUNT', ARGV[3])
if page.err then return {'0', 0, 0, page.err} end
local fields, gone, bytes = page[2], {}, tonumber(ARGV[4])
for i = 1, #fields, 2 do
  if bytes > 0 and not redis.pcall('XPENDING', KEYS[1], ARGV[1], fields[i + 1], fields[i + 1], 1)[1] then
    local id, size = outstanding(KEYS[1], KEYS[2], fields[i])
    bytes = bytes - (size or 0)
    if not id then gone[#gone + 1] = fields[i] end
  end
end
for i = 1, #gone, 1000 do -- what is small comes in one page, however many were asked for
  local forgotten = redis.pcall('HDEL', KEYS[2], unpack(gone, i, math.min(#gone, i + 999)))
  if type(forgotten) == 'table' then return {'0', 0, 0, forgotten.err} end
end
return {page[1], #fields / 2, #gone}
