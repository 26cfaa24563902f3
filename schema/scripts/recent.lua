#!lua flags=no-writes,allow-oom
-- The latest endings in a partition's journal, newest first: how fast work is being done. Bounded in entries and in bytes,
-- whatever documents lie in between.
--
-- KEYS  journal
-- ARGV  most entries to look at, bytes after which no more are looked at
-- reply {type, e, type, e, ...} of `completed` and `failed` events
local found, seen, bytes, to = {}, 0, 0, '+'
while seen < tonumber(ARGV[1]) and bytes < tonumber(ARGV[2]) do
  local some = redis.call('XREVRANGE', KEYS[1], to, '-', 'COUNT', 8)
  for _, entry in ipairs(some) do
    local kind, event = '', ''
    for i = 1, #entry[2], 2 do
      bytes = bytes + #entry[2][i + 1]
      if entry[2][i] == 'type' then kind = entry[2][i + 1] end
      if entry[2][i] == 'e' then event = entry[2][i + 1] end
    end
    if kind == 'completed' or kind == 'failed' then
      found[#found + 1] = kind
      found[#found + 1] = event
    end
  end
  seen = seen + #some
  if #some < 8 then return found end
  to = '(' .. some[#some][1]
end
return found
