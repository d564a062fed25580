-- resume: end the pause.
--
-- KEYS  1 the pause
-- ARGV  1 control channel
-- Returns what the key held; '' if that was no string, or nothing.
-- Hint  ordered
local said = redis.pcall('GET', KEYS[1])
if type(said) == 'table' and not string.find(said.err, 'WRONGTYPE', 1, true) then return said end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[1], 'ordered')
return type(said) == 'string' and said or ''
