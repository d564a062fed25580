-- put_back: announce a dead letter's stream again and remove the letter. The announcement's own fields, which follow
-- the four of the letter's head, and letter-details, are kept byte for byte. A repeat after a lost reply finds no letter.
--
-- KEYS  1 load balancer stream   2 dead letters   3 newest announcements, a hash: stream, LBS id. It may
--       be left out by whom Redis does not permit it
-- ARGV  1 letter id   2 the announcement's field
-- Returns the new announcement's id, or 'gone' when there is no such letter. When Redis is full (OOM) nothing is
--         changed.
local letter = redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1])[1]
if not letter then return 'gone' end
local fields, first = letter[2], 9
if #fields == 10 and fields[9] == 'fields-msgpack' then fields, first = cmsgpack.unpack(fields[10]), 1 end
if fields[first] == 'letter-details' then first = first + 2 end
-- unpack() takes some 8,000 words at the most, arguments that are passed on as many as there are. So the last ones are
-- unpacked, and the others put before them, eight at a time: 10 ms of Redis for 10,000 words, 40 ms for 20,000.
local function announce(i, ...)
  if i == first then return redis.call('XADD', KEYS[1], '*', ...) end
  i = i - 8
  return announce(i, fields[i], fields[i + 1], fields[i + 2], fields[i + 3], fields[i + 4], fields[i + 5],
    fields[i + 6], fields[i + 7], ...)
end
local rest = first + 8 * math.ceil(math.max(0, #fields - first + 1 - 4000) / 8)
local id = announce(rest, unpack(fields, rest))
redis.call('XDEL', KEYS[2], ARGV[1])
for i = first, KEYS[3] and #fields or 0, 2 do
  local understood, said = pcall(cjson.decode, fields[i] == ARGV[2] and fields[i + 1] or '')
  if understood and type(said) == 'table' and type(said.DataStreamName) == 'string' then
    redis.pcall('HSET', KEYS[3], said.DataStreamName, id)
  end
end
return id
