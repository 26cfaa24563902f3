#!lua flags=allow-oom
-- Ends attempts that will be repeated: each becomes one `retry_scheduled` event and a delayed task.
--
-- KEYS  journal, lane, delayed, waiting tasks with a deadline, then per task: record
-- ARGV  group, then per task: token, event, next attempt, due time in ms
-- reply per task: {'OK'} | {'DONE'} (a repeated call) | {'LOST'} (fenced off)
local journal, lane, delayed, group = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local replies = {}
local task = 0
for a = 2, #ARGV, 4 do
  local record, token, event, attempt, due = KEYS[5 + task], ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  task = task + 1
  local r = redis.call('HMGET', record, 's', 'q', 'f', 't', 'd')
  local reply
  if r[2] == token and r[1] == 'P' then
    local id = string.sub(record, -36)
    local n = redis.call('XADD', journal, '0-*', 'type', 'retry_scheduled', 'task', id, 'first', r[3], 'e', event)
    redis.call('HSET', record, 's', 'D', 'a', attempt, 'q', '', 't', token, 'c', string.sub(n, 3))
    redis.call('HDEL', record, 'w')
    redis.call('ZADD', delayed, due, id)
    if r[5] then redis.call('ZADD', KEYS[4], r[5], id) end
    redis.call('XACK', lane, group, token)
    redis.call('XDEL', lane, token)
    reply = { 'OK' }
  elseif r[4] == token then
    reply = { 'DONE' }
  else
    reply = { 'LOST' }
  end
  replies[task] = reply
end
return replies
