-- shares: which share of the streams is this consumer's. For share.lua and claim_many.lua.

local ROUNDING = 1e-9 -- a share that is so little above a whole number is that number

-- The weight of the holder of a lock, and the most streams that it takes. nil: there is no such lock. Locks of older
-- versions do not say it; the members weigh 1 then, and take any number.
local SAID = '^{"ttl": %d+, "weight": ([%d.]+), "max_streams": (%w+)' -- with the anchor it costs next to nothing
local function holder_of(lock)
  local said = redis.pcall('GET', lock) -- an error for what is no string
  if not said then return nil end
  local weight, limit
  if type(said) == 'string' then weight, limit = string.match(said, SAID) end
  weight = tonumber(weight) or 1
  return weight > 0 and weight or 1, tonumber(limit) or math.huge
end

-- How many of `streams` that have no owner are for this consumer, which has `mine` and its `weight`. They raise those
-- first that have the fewest for their weight, all to one level. Nobody who is above it takes any.
-- others: {{streams, weight}, ...}, the live ones that have room
local function level(streams, mine, weight, others)
  while true do
    local total, weights, below = mine + streams, weight, {}
    for _, other in ipairs(others) do total, weights = total + other[1], weights + other[2] end
    for _, other in ipairs(others) do
      if other[1] * weights <= total * other[2] then below[#below + 1] = other end
    end
    if #below == #others then return math.ceil(total * weight / weights - ROUNDING) - mine end
    others = below
  end
end
