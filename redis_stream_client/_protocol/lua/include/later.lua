-- later: which of two ids of entries is the greater one. For retain.lua and withhold.lua.

local function greater(a, b) -- decimal numbers of up to 64 bits, which Lua's numbers cannot hold
  return #a > #b or #a == #b and a > b
end
local function later(id, than)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  local than_ms, than_seq = string.match(than, '^(%d+)-(%d+)$')
  return greater(ms, than_ms) or ms == than_ms and greater(seq, than_seq)
end
