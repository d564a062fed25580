-- write: store what came of some entries and the position after them, unless a newer owner has begun.
--
-- KEYS  1 position of the data stream (hash)   2 its effects (stream)
-- ARGV  1 fence   2 consumer   3 '1' if these are the data stream's last entries
--         then, for each entry: id, number. Without entries it only tells where to go on: a new owner begins.
-- Returns {1, id, number, finished}   accepted: id and number of the last entry processed, '1' if it was the last
--         {0, fence}                  refused: the fence of a newer owner
local stored = redis.call('HGET', KEYS[1], 'fence')
if stored and stored > ARGV[1] then return {0, stored} end
redis.call('HSET', KEYS[1], 'fence', ARGV[1])
for i = 4, #ARGV, 2 do
  redis.call('HSET', KEYS[1], 'id', ARGV[i], 'number', ARGV[i + 1], 'finished', ARGV[3])
  redis.call('XADD', KEYS[2], '*', 'number', ARGV[i + 1], 'fence', ARGV[1], 'consumer', ARGV[2])
end
local position = redis.call('HMGET', KEYS[1], 'id', 'number', 'finished')
return {1, position[1] or '0-0', position[2] or '0', position[3] or '0'}
