#!lua flags=allow-oom
-- Begins attempts: each lane entry read from the group becomes one `processing` event. A waiting task whose deadline has
-- passed by Redis' clock is not begun; `expire.lua` ends it.
--
-- KEYS  journal, lane, waiting tasks with a deadline, then per task: record
-- ARGV  group, worker, then per task: token (lane entry id), event
-- reply per task: {'OK', first n, submitted event's `e`} | {'BUSY'} | {'LOST'} | {'EXPIRED'}
--   OK    also for a repeated call of the same worker, without a second event
--   BUSY  another worker holds this very entry (its group was created anew): leave it alone
--   LOST  the entry is no task's token any more: it has been taken off the lane
local journal, lane, group, worker = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local replies = {}
local task = 0
local now
local function is_past(deadline)
  if not deadline then return false end
  now = now or redis.call('TIME')
  return tonumber(deadline) <= now[1] * 1000 + math.floor(now[2] / 1000)
end
for a = 3, #ARGV, 2 do
  local record, token, event = KEYS[4 + task], ARGV[a], ARGV[a + 1]
  task = task + 1
  local r = redis.call('HMGET', record, 's', 'q', 'w', 'f', 'd', 'p')
  local reply
  if r[2] ~= token or r[1] == 'Z' then
    redis.call('XACK', lane, group, token)
    redis.call('XDEL', lane, token)
    reply = { 'LOST' }
  elseif r[1] == 'P' and r[3] ~= worker then
    reply = { 'BUSY' }
  elseif r[1] == 'Q' and is_past(r[5]) then
    reply = { 'EXPIRED' }
  else
    local first = r[4]
    local entry = redis.call('XRANGE', journal, '0-' .. first, '0-' .. first)
    -- A journal that was trimmed beyond it has left it in the record.
    local submitted = r[6] or ''
    if entry[1] then
      local fields = entry[1][2]
      for i = 1, #fields, 2 do
        if fields[i] == 'e' then submitted = fields[i + 1] end
      end
    end
    if r[1] == 'Q' then
      local id = string.sub(record, -36)
      local n = redis.call('XADD', journal, '0-*', 'type', 'processing', 'task', id, 'first', first, 'e', event)
      redis.call('HSET', record, 's', 'P', 'w', worker, 'c', string.sub(n, 3))
      if r[5] then redis.call('ZREM', KEYS[3], id) end
    end
    reply = { 'OK', first, submitted }
  end
  replies[task] = reply
end
return replies
