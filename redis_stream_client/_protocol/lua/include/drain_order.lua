-- drain_order: the order to drain that an operator has put at the end of a lock's value, which is JSON. For join.lua,
-- order_drain.lua and say.lua.

-- The order in what a lock holds; nil: there is none.
local function drain_order(said)
  return type(said) == 'string' and string.match(said, '(, "drain": %d+)}$') or nil
end

-- The value with the order at its end.
local function with_drain_order(value, order)
  return order and string.sub(value, 1, -2) .. order .. '}' or value
end
