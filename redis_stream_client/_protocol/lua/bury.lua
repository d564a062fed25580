-- bury: move an announcement that cannot be processed to the dead letters. The letter is headed by
-- reason, lbs-id, consumer and deliveries, and letter-details where more is known; the announcement's own fields
-- follow, byte for byte. Where these are many, letter-details and they are packed together.
--
-- KEYS  1 load balancer stream   2 dead letters   3 newest announcements, a hash: stream, LBS id
-- ARGV  1 group   2 consumer   3 entry id   4 delivery count   5 reason   6 details as JSON, or ''
--       7 stream, or '' if the announcement is malformed
-- Returns 'buried', 'gone', or the current owner's name. When Redis is full (OOM) nothing is changed.
--#include withheld
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not pending then return 'gone' end
if pending[2] ~= ARGV[2] or pending[4] ~= tonumber(ARGV[4]) then return pending[2] end
local entry = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
if entry then
  local letter = {'reason', ARGV[5], 'lbs-id', ARGV[3], 'consumer', ARGV[2], 'deliveries', ARGV[4]}
  local fields = entry[2]
  if ARGV[6] and ARGV[6] ~= '' then
    fields = {'letter-details', ARGV[6]}
    for i = 1, #entry[2] do fields[#fields + 1] = entry[2][i] end
  end
  if #fields > 4000 then fields = {'fields-msgpack', cmsgpack.pack(fields)} end -- more than unpack() can take
  for i = 1, #fields do letter[#letter + 1] = fields[i] end
  redis.call('XADD', KEYS[2], '*', unpack(letter))
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[3])
redis.call('XDEL', KEYS[1], ARGV[3])
if names(redis.pcall('HGET', KEYS[3], ARGV[7]), ARGV[3]) then redis.pcall('HDEL', KEYS[3], ARGV[7]) end
return entry and 'buried' or 'gone'
