-- announced: which streams have an outstanding announcement, whoever made it: all of the load balancer stream counts.
--
-- KEYS  1 load balancer stream
-- ARGV  names of streams, which JSON writes as they are
-- Returns those that have one.
local wanted, found = {}, {}
for _, stream in ipairs(ARGV) do wanted[stream] = '"' .. stream .. '"' end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  for stream, name in pairs(wanted) do
    if string.find(table.concat(entry[2], ' '), name, 1, true) then
      found[#found + 1] = stream
      wanted[stream] = nil
    end
  end
end
return found
