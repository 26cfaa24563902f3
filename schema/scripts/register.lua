#!lua flags=allow-oom
-- Appends events to the registry's stream, all or none, when nobody has written since the caller read.
--
-- KEYS  registry
-- ARGV  number of the last event the caller knows, the write's own token, then per event: type, event
-- reply 1 written, now or by an earlier call of the same write | 0 others wrote before
local known = tonumber(ARGV[1])
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local number = last[1] and tonumber(string.sub(last[1][1], 3)) or 0
if number ~= known then
  -- A repeated call finds its own events behind what it knew.
  local next = redis.call('XRANGE', KEYS[1], '0-' .. string.format('%.0f', known + 1), '+', 'COUNT', 1)
  local fields = next[1] and next[1][2] or {}
  for at = 1, #fields, 2 do
    if fields[at] == 'w' and fields[at + 1] == ARGV[2] then return 1 end
  end
  return 0
end
for a = 3, #ARGV, 2 do
  redis.call('XADD', KEYS[1], '0-*', 'type', ARGV[a], 'w', ARGV[2], 'e', ARGV[a + 1])
end
return 1
