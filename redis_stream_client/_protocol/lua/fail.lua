-- fail: the handlers of some owners have failed, each while its owner lived: a failure, and no death.
--
-- KEYS  progress records
-- ARGV  for each record: fence; consumer; what the failure was
-- Returns for each {'failed', failures since the last progress, for how many ms it has been failing}
--                  {'refused', its fence or '', its consumer or ''}, or {'error', message}: nothing was changed
-- An owner that got on counts nothing, nor does a repeat by the same owner. Failures at an earlier announcement or
-- checkpoint do not count: see begin.
local WORDS = 3
local LBS_ID = 41 -- characters of a fence that name the announcement
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function count(text) -- whatever else stands there counts none
  return text and #text < 10 and string.match(text, '^%d+$') and tonumber(text) or 0
end
local function since(text) -- a time in ms
  return text and #text < 16 and string.match(text, '^%d+$') and tonumber(text) or now
end
local results = {}
for i = 1, #KEYS do
  local at = (i - 1) * WORDS
  local fence = ARGV[at + 1]
  local stored = redis.pcall('HMGET', KEYS[i], 'fence', 'consumer', 'checkpoint', 'attempts', 'failures', 'failing',
    'failed')
  if stored.err then
    results[i] = {'error', stored.err}
  elseif stored[1] ~= fence or stored[2] ~= ARGV[at + 2] then
    results[i] = {'refused', stored[1] or '', stored[2] or ''}
  else
    local failed, checkpoint = stored[7], stored[3] or ''
    local failures, failing = 0, now
    if failed and string.sub(failed, 1, LBS_ID) == string.sub(fence, 1, LBS_ID)
      and string.match(failed, ' (.*)$') == checkpoint then
      failures, failing = count(stored[5]), since(stored[6])
    end
    local mark = fence .. ' ' .. checkpoint
    local written
    if failed ~= mark and count(stored[4]) > 0 then
      failures = failures + 1
      written = redis.pcall('HSET', KEYS[i], 'attempts', count(stored[4]) - 1, 'failures', failures,
        'failing', failing, 'failed', mark, 'error', ARGV[at + 3], 'began', '')
    end
    if type(written) == 'table' and written.err then
      results[i] = {'error', written.err}
    else
      results[i] = {'failed', failures, math.max(0, now - failing)}
    end
  end
end
return results
