#!lua flags=no-writes,allow-oom
-- Where a task stands, as one snapshot: its record, its latest event, its lane entry's holder and its places in the sorted
-- sets. Every command here is bounded.
--
-- KEYS  journal, record, lane, delayed, dead letters
-- ARGV  group, task id
-- reply nil | {state, token, attempt, worker, first n, outcome, requeues, latest event's n, its type, its `e`, its holder,
--             holder's idle time in ms, due time in ms, died at in ms, length of the lane, last id delivered from it,
--             entries delivered and not yet ended, now in ms}; '' where there is none
local r = redis.call('HMGET', KEYS[2], 's', 'q', 'a', 'w', 'f', 'o', 'r', 'e', 'c')
if not r[1] then return nil end
local now = redis.call('TIME')
local latest, kind, event = r[8] or r[9] or '', '', ''
if latest ~= '' then
  local entry = redis.call('XRANGE', KEYS[1], '0-' .. latest, '0-' .. latest)
  local fields = entry[1] and entry[1][2] or {}
  for i = 1, #fields, 2 do
    if fields[i] == 'type' then kind = fields[i + 1] end
    if fields[i] == 'e' then event = fields[i + 1] end
  end
end
-- No lane or no group: nobody has ever read it.
local delivered, pending = '', 0
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[3])
for _, group in ipairs(groups) do
  local g = {}
  for i = 1, #group, 2 do g[group[i]] = group[i + 1] end
  if g['name'] == ARGV[1] then delivered, pending = g['last-delivered-id'], g['pending'] end
end
local holder, idle = '', ''
if delivered ~= '' and r[2] and r[2] ~= '' then
  local held = redis.call('XPENDING', KEYS[3], ARGV[1], r[2], r[2], 1)
  if held[1] then holder, idle = held[1][2], tostring(held[1][3]) end
end
return {
  r[1], r[2] or '', r[3] or '0', r[4] or '', r[5] or '0', r[6] or '', r[7] or '0', latest, kind, event, holder, idle,
  redis.call('ZSCORE', KEYS[4], ARGV[2]) or '', redis.call('ZSCORE', KEYS[5], ARGV[2]) or '',
  tostring(redis.call('XLEN', KEYS[3])), delivered, tostring(pending),
  string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000)),
}
