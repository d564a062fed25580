-- checkpoint: advance how far data streams were processed, each only by the owner that has begun. Never creates a
-- record. An id that is not greater than the stored one, a late duplicate, changes nothing. With an advance attempts and
-- failures count anew.
--
-- KEYS  progress records
-- ARGV  for each record: fence; consumer; id of the last entry that was processed; how many entries were added to the
--       stream up to it, or '' if that is not known
-- Returns for each {'advanced'}, {'kept'}, {'refused', its fence or '', its consumer or ''}, or {'error', message}
local WORDS = 4
local function greater(a, b) -- decimal numbers of up to 64 bits, which Lua's numbers cannot hold
  return #a > #b or #a == #b and a > b
end
local function later(id, than)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local than_ms, than_seq = string.match(than or '', '^(%d+)-(%d+)$')
  if not than_ms then return true end
  return greater(ms, than_ms) or ms == than_ms and greater(seq, than_seq)
end
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'added', 'failed')
  if stored.err then
    results[i] = {'error', stored.err}
  elseif stored[1] ~= ARGV[at + 1] or stored[2] ~= ARGV[at + 2] then
    results[i] = {'refused', stored[1] or '', stored[2] or ''}
  elseif not later(ARGV[at + 3], stored[3]) then
    results[i] = {'kept'}
  else
    local fields = {'checkpoint', ARGV[at + 3], 'attempts', 0}
    if stored[4] or ARGV[at + 4] ~= '' then
      fields[5], fields[6] = 'added', ARGV[at + 4]
    end
    if stored[5] and stored[5] ~= '' then
      local over = {'failures', 0, 'failing', '', 'failed', '', 'error', ''}
      for j = 1, #over do fields[#fields + 1] = over[j] end
    end
    local written = redis.pcall('HSET', KEYS[i], unpack(fields))
    if type(written) == 'table' and written.err then
      results[i] = {'error', written.err}
    else
      results[i] = {'advanced'}
    end
  end
end
return results
