-- withhold: streams may be put to sleep. Until then the hash of the newest announcements says of each that its
-- announcement is withheld, so that producers announce the stream anew; or it is restored, because there is something to
-- read. Each only if owner and delivery count are those of the caller. A request that is executed late restores nothing
-- that a later attempt has withheld, and withholds nothing anew.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 consumer   3 'withhold' or 'restore'   then, for each: entry id, delivery count, stream, number of the
--       attempt, which grows
-- Returns for each 'withheld' or 'restored'; 'newer' (the stream was announced again, that announcement is outstanding,
--         and nothing was changed); 'gone' (the entry is not pending); or the name of the current owner (this consumer's
--         own, if only the count differs).
-- A repeat changes nothing. If the hash cannot be written, because Redis is full, the stream is announced once more
-- than necessary.
--#include withheld
--#include later
local function outstanding(id)
  local found = redis.pcall('XRANGE', KEYS[1], id, id)
  return not found.err and found[1]
end
local results = {}
for i = 4, #ARGV, 4 do
  local id, stream, attempt = ARGV[i], ARGV[i + 2], tonumber(ARGV[i + 3])
  local restores = ARGV[3] == 'restore'
  local result = restores and 'restored' or 'withheld'
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  if not pending then
    result = 'gone'
  elseif pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[i + 1]) then
    result = pending[2]
  else
    local newest = redis.pcall('HGET', KEYS[2], stream)
    local another_type = type(newest) == 'table' -- then no producer finds anything either
    if another_type and not string.find(newest.err, 'WRONGTYPE', 1, true) then return newest end
    local named, withheld = parsed(newest)
    if named and later(named, id) and outstanding(named) then
      if withheld == 0 then result = 'newer' end
    elseif restores then
      if named == id and withheld == attempt then redis.pcall('HSET', KEYS[2], stream, id) end
    elseif not another_type and (named ~= id or withheld < attempt) then
      local written = redis.pcall('HSET', KEYS[2], stream, id .. '!' .. ARGV[i + 3])
      if type(written) == 'table' then redis.call('HDEL', KEYS[2], stream) end -- which a full Redis accepts
    end
  end
  results[#results + 1] = result
end
return results
