-- orphans: list a page of the entries that are pending for a dead consumer. If one was trimmed while it was pending, it
-- is pending no more afterwards, because nobody could work on it.
--
-- KEYS  1 load balancer stream   2 the consumer's lock
-- ARGV  1 group   2 consumer   3 first id, "-" or "(id"   4 page size   5 bytes of announcements after which to stop
-- Returns {'alive'}, or {'dead', id of the last entry of the page or '' if that was all,
--                        {id, delivery count, fields}, ...}
--#include greatest
if redis.call('EXISTS', KEYS[2]) == 1 then return {'alive'} end
local page, bytes, most = {'dead', ''}, tonumber(ARGV[5]), tonumber(ARGV[4])
local listed = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', most, ARGV[2])
for i, pending in ipairs(listed) do
  local id = pending[1]
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    page[#page + 1] = {id, pending[4], entry[2]}
    for _, word in ipairs(entry[2]) do bytes = bytes - #word end
  else
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
  if bytes <= 0 and i < #listed or i == most then
    page[2] = id ~= GREATEST and id or ''
    break
  end
end
return page
