-- orphans: a page of what is pending for a consumer that is dead. Entries that were trimmed while pending
-- are cleaned up on the way: there is nothing left to give to anybody.
--
-- KEYS  1 load balancer stream   2 the consumer's lock
-- ARGV  1 group   2 consumer   3 first id, "-" or "(id"   4 page size
-- Returns {'alive'}, or {'dead', last id looked at or '', {id, delivery count, fields}, ...}
if redis.call('EXISTS', KEYS[2]) == 1 then return {'alive'} end
local page = {'dead', ''}
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4], ARGV[2])) do
  local id = pending[1]
  page[2] = id
  local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
  if entry then
    page[#page + 1] = {id, pending[4], entry[2]}
  else
    redis.call('XACK', KEYS[1], ARGV[1], id)
  end
end
return page
