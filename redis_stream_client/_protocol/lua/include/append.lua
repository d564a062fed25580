-- append: add entries to data streams, and keep the progress record of a stream that wakes. For append.lua and write.lua.

-- Add the entries of one stream that begin at ARGV[at]. Returns {id, ...}, with {message} for an entry that Redis
-- refuses; whether at least one is in the stream; where the next words begin; and an error that is about the server, not
-- about the stream, so that the connection must be given up: it leads to the wrong one. After a refusal, the stream's later
-- entries are refused, too: they must not come without it.
-- An entry with an id of the caller that is there already is a repeat.
local function append(stream, maxlen, at)
  local count = tonumber(ARGV[at])
  at = at + 1
  local results, there, refused = {}, false, nil
  for i = 1, count do
    local id, last = ARGV[at], at + 1 + tonumber(ARGV[at + 1])
    local found = not refused and id ~= '*' and redis.pcall('XRANGE', stream, id, id)
    local added
    if refused then
      added = refused
    elseif found and found.err then
      added = found
    elseif found and found[1] then
      added = id
    elseif maxlen ~= '' then
      added = redis.pcall('XADD', stream, 'MAXLEN', '~', maxlen, id, unpack(ARGV, at + 2, last))
    else
      added = redis.pcall('XADD', stream, id, unpack(ARGV, at + 2, last))
    end
    if type(added) == 'table' then
      refused = added
      results[i] = {added.err}
    else
      there = true
      results[i] = added
    end
    at = last + 1
  end
  return results, there, at, refused and string.find(refused.err, 'READONLY', 1, true) and refused
end

-- A stream wakes: it is announced, and was not before. Its record must not expire until an owner has begun; or, if it
-- has expired already, an owner must learn which entry of many has woken it. If an entry comes before that of who has
-- announced the stream, nobody can tell, so the owner begins at the start. Returns an error, if there is one.
-- fence, since: what the record holds; had: whether there were entries before; ttl: ms that such a note stays;
-- by_us: whether this call has announced it
local function wake(record, fence, since, had, first, ttl, by_us)
  local done
  if fence then
    done = by_us and redis.pcall('PERSIST', record)
  elseif not since and (had or not by_us) then
    done = redis.pcall('HSET', record, 'since', by_us and first or '-')
    if done == 1 then done = redis.pcall('PEXPIRE', record, ttl) end
  end
  return type(done) == 'table' and done.err or nil
end

-- Where the words behind the entries begin, if those that begin at ARGV[at] are left out.
local function skip(at)
  local count = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, count do at = at + 2 + tonumber(ARGV[at + 1]) end
  return at
end

-- The ids; with a problem, should there be one.
local function with(problem, ids)
  return problem and {'but', problem, unpack(ids)} or ids
end
