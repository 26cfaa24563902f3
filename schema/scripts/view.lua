#!lua flags=no-writes,allow-oom
-- One task as it stands now, with its first and its last event.
--
-- KEYS  journal, record
-- reply nil | {state, attempt, worker, first n, lane, outcome, submitted event's `e`, terminal n, terminal event's `e`,
--             seconds to live (-1 while running), seconds it is kept after its end ('' = default)}
local r = redis.call('HMGET', KEYS[2], 's', 'a', 'w', 'f', 'l', 'o', 'e', 'u', 'p')
if not r[1] then return nil end
local function event(n)
  local entry = redis.call('XRANGE', KEYS[1], '0-' .. n, '0-' .. n)
  if not entry[1] then return '' end
  local fields = entry[1][2]
  for i = 1, #fields, 2 do
    if fields[i] == 'e' then return fields[i + 1] end
  end
  return ''
end
return {
  r[1], r[2] or '0', r[3] or '', r[4], r[5] or '', r[6] or '', r[9] or event(r[4]),
  r[7] or '', r[7] and event(r[7]) or '', redis.call('TTL', KEYS[2]), r[8] or '',
}
