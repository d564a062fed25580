-- probe: use every command that the other scripts use, so that a missing permission, or a key of another type, is found
-- when joining, and not later. It has no effect except a hint to the peers. Entry 0-0 can never exist: Redis
-- refuses it, whoever chooses the id.
--
-- KEYS  1 load balancer stream   2 this consumer's lock   3 dead letters   4 sweep turn
-- ARGV  1 group   2 control channel   3 name of a consumer that does not exist   4 consumer
-- Returns command and error message of each command that failed, in turn. Some fail although they are permitted; the
--         caller can tell them apart.
-- Hint  joined <consumer>
local failed = {}
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = select(1, ...)
    failed[#failed + 1] = reply.err
  end
end
try('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
try('XINFO', 'GROUPS', KEYS[1])
try('XPENDING', KEYS[1], ARGV[1], '0-0', '0-0', 1)
try('XRANGE', KEYS[1], '0-0', '0-0')
try('XLEN', KEYS[1])
try('XREADGROUP', 'GROUP', ARGV[1], ARGV[3], 'COUNT', 1, 'STREAMS', KEYS[1], '0-0')
try('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, '0-0', 'JUSTID')
try('XACK', KEYS[1], ARGV[1], '0-0')
try('XDEL', KEYS[1], '0-0')
try('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[3])
try('XLEN', KEYS[3])
try('XADD', KEYS[3], '0-0', 'probe', '') -- 0-0 is always refused, and after the permission was checked
try('EXISTS', KEYS[2])
try('GET', KEYS[2])
try('PTTL', KEYS[2])
try('PEXPIRE', KEYS[4], 1)
try('SET', KEYS[4], '', 'XX', 'PX', 1)
try('DEL', KEYS[4]) -- costs at most one sweep more
try('TIME')
try('PING')
try('PUBLISH', ARGV[2], 'joined ' .. ARGV[4])
return failed
