-- move: move the progress record of a data stream from its former key to its new one, if it certainly belongs to this
-- stream. Another stream may have had the same former key.
--
-- KEYS  1 the record   2 its former key
-- ARGV  1 the beginning of all fences of this stream's announcement
-- Returns 1 if it was moved, else 0.
if redis.pcall('HGET', KEYS[1], 'fence') then return 0 end -- a note of a producer is no record
local stored = redis.pcall('HMGET', KEYS[2], 'fence', 'consumer', 'checkpoint', 'attempts')
local fence = stored[1]
if stored.err or not fence or string.sub(fence, 1, #ARGV[1]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'fence', fence, 'consumer', stored[2] or '', 'attempts', stored[4] or 0)
if stored[3] then redis.call('HSET', KEYS[1], 'checkpoint', stored[3]) end
redis.call('DEL', KEYS[2])
return 1
