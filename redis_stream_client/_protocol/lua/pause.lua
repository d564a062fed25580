-- pause: nobody is to take new streams, until somebody resumes. Who pauses again changes the reason alone.
--
-- KEYS  1 the pause, a string: JSON of since when, in ms of this server's clock, and the reason
-- ARGV  1 the reason, as JSON   2 control channel
-- Returns what the key holds now.
-- Hint  ordered
local said = redis.pcall('GET', KEYS[1])
if type(said) == 'table' and not string.find(said.err, 'WRONGTYPE', 1, true) then return said end
local since = type(said) == 'string' and string.match(said, '^{"since": (%d+), ')
if not since then
  local time = redis.call('TIME')
  since = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
end
local value = '{"since": ' .. since .. ', "reason": ' .. ARGV[1] .. '}'
redis.call('SET', KEYS[1], value)
redis.call('PUBLISH', ARGV[2], 'ordered')
return value
