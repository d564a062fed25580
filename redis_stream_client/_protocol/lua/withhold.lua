-- withhold: streams may be put to sleep. Their announcements are taken out of the hash of outstanding ones, so that
-- producers announce the streams anew from now on; or are put back, because there is something to read. Each only if
-- owner and delivery count are those of the caller.
--
-- KEYS  1 load balancer stream   2 hash: stream -> id of its newest announcement
-- ARGV  1 group   2 consumer   3 'withhold' or 'restore'   then, for each: entry id, delivery count, stream
-- Returns for each 'withheld' or 'restored'; 'newer' (the stream was announced again, that announcement is outstanding,
--         and nothing was changed); 'gone' (the entry is not pending); or the name of the current owner (this consumer's
--         own, if only the count differs).
-- A repeat changes nothing. If the hash cannot be written, because Redis is full, the stream is announced once more
-- than necessary.
local function greater(a, b) -- decimal numbers of up to 64 bits, which Lua's numbers cannot hold
  return #a > #b or #a == #b and a > b
end
local function later(id, than)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local than_ms, than_seq = string.match(than, '^(%d+)-(%d+)$')
  return ms and (greater(ms, than_ms) or ms == than_ms and greater(seq, than_seq))
end
local function outstanding(id)
  local found = redis.pcall('XRANGE', KEYS[1], id, id)
  return not found.err and found[1]
end
local results = {}
for i = 4, #ARGV, 3 do
  local id, stream = ARGV[i], ARGV[i + 2]
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1)[1]
  local result
  if not pending then
    result = 'gone'
  elseif pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[i + 1]) then
    result = pending[2]
  else
    local newest = redis.pcall('HGET', KEYS[2], stream)
    if type(newest) == 'table' then -- in a key of another type no producer finds anything either
      if not string.find(newest.err, 'WRONGTYPE', 1, true) then return newest end
      newest = false
    end
    if newest and later(newest, id) and outstanding(newest) then
      result = 'newer'
    elseif ARGV[3] == 'restore' then
      if newest ~= id then redis.pcall('HSET', KEYS[2], stream, id) end
      result = 'restored'
    else
      if newest then redis.call('HDEL', KEYS[2], stream) end
      result = 'withheld'
    end
  end
  results[#results + 1] = result
end
return results
