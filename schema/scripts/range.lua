#!lua flags=no-writes,allow-oom
-- Reads a run of the journal of bounded size: it ends with the entry that reaches the bound, however many were asked for.
--
-- KEYS  journal
-- ARGV  id of the first entry, most entries, bytes after which no more are read
-- reply {1 at the journal's end else 0, {entry, ...} as XRANGE gives them}
local entries, bytes, from, most = {}, 0, ARGV[1], tonumber(ARGV[2])
while #entries < most do
  local step = math.min(8, most - #entries)
  local some = redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', step)
  for _, entry in ipairs(some) do
    entries[#entries + 1] = entry
    for _, field in ipairs(entry[2]) do bytes = bytes + #field end
    if bytes >= tonumber(ARGV[3]) then return { 0, entries } end
  end
  if #some < step then return { 1, entries } end
  from = '(' .. some[#some][1]
end
return { 0, entries }
