#!lua flags=allow-oom
-- Ends attempts for good: each becomes one terminal event (`completed` or `failed`), and a failed task also one
-- `dead_lettered` event and a place on the dead-letter list.
--
-- KEYS  journal, lane, dead letters, then per task: record
-- ARGV  group, now in ms, default seconds to keep an ended record,
--       then per task: token, event type, event, dead-letter event ('' = none)
-- reply per task: {'OK', n} | {'DONE'} (this attempt ended the task before: a repeated call) | {'LOST'} (fenced off)
local journal, lane, dead, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local replies = {}
local task = 0
for a = 4, #ARGV, 4 do
  local record, token, kind, event, letter = KEYS[4 + task], ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  task = task + 1
  local r = redis.call('HMGET', record, 's', 'q', 'f', 'u')
  local reply
  if r[2] ~= token then
    reply = { 'LOST' }
  elseif r[1] == 'Z' then
    reply = { 'DONE' }
  elseif r[1] ~= 'P' then
    reply = { 'LOST' }
  else
    local id = string.sub(record, -36)
    local position = redis.call('XADD', journal, '0-*', 'type', kind, 'task', id, 'first', r[3], 'e', event)
    local n = string.sub(position, 3)
    redis.call('HSET', record, 's', 'Z', 'o', kind, 'e', n)
    redis.call('HDEL', record, 'p')
    redis.call('EXPIRE', record, (r[4] and r[4] ~= '') and r[4] or ARGV[3])
    redis.call('XACK', lane, group, token)
    redis.call('XDEL', lane, token)
    if letter ~= '' then
      redis.call('XADD', journal, '0-*', 'type', 'dead_lettered', 'task', id, 'first', r[3], 'e', letter)
      redis.call('ZADD', dead, ARGV[2], id)
    end
    reply = { 'OK', n }
  end
  replies[task] = reply
end
return replies
