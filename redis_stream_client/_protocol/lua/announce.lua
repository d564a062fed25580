-- announce: announce data streams, each unless an announcement of it is outstanding: waiting or pending.
--
-- KEYS  1 load balancer stream   2 newest announcements, a hash: stream, LBS id
-- ARGV  1 the announcements' field   2 bytes of announcements after which to stop: to see that one is outstanding, Redis
--       must read it
--       then, for each stream: its name, the announcement, an LBS id that does not count as outstanding ('' for none)
-- Returns for each stream {LBS id, 1 if it was announced now, else 0}, or {LBS id or '', 1 or 0, error message}: an
--         error of one does not stop the others. With an id, the stream is announced although the hash could not be
--         written. If it stops early, there are results for the first streams only.
--#include outstanding
local results, bytes = {}, tonumber(ARGV[2])
for i = 3, #ARGV, 3 do
  if bytes <= 0 then break end
  local stream = ARGV[i]
  local known, size = outstanding(KEYS[1], KEYS[2], stream)
  bytes = bytes - (size or 0)
  local result
  if type(known) == 'table' then
    result = {'', 0, known.err}
  elseif known and known ~= ARGV[i + 2] then
    result = {known, 0}
  else
    local id = redis.pcall('XADD', KEYS[1], '*', ARGV[1], ARGV[i + 1])
    if type(id) == 'table' and string.find(id.err, 'READONLY', 1, true) then
      return id -- so that the connection is given up: it leads to the wrong server
    elseif type(id) == 'table' then
      result = {'', 0, id.err}
    else
      local kept = redis.pcall('HSET', KEYS[2], stream, id)
      result = {id, 1, type(kept) == 'table' and kept.err or nil}
    end
  end
  results[#results + 1] = result
end
return results
