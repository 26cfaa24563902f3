#!lua flags=allow-oom
-- Ends waiting tasks whose deadline has passed by Redis' clock: each becomes one `failed` event, without a dead letter. A
-- running task is left alone: its deadline is over once it has begun, and counts again when it waits for another attempt.
--
-- KEYS  journal, waiting tasks with a deadline, delayed, then per task: lane, record
-- ARGV  default seconds to keep an ended record, then per task: id, group, event
-- reply per task: 'OK' | 'EARLY' (not past) | 'LOST' (running, ended, or unknown)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local replies = {}
local task = 0
for a = 2, #ARGV, 3 do
  local lane, record, id, group, event = KEYS[4 + task * 2], KEYS[5 + task * 2], ARGV[a], ARGV[a + 1], ARGV[a + 2]
  task = task + 1
  local r = redis.call('HMGET', record, 's', 'q', 'f', 'u', 'd')
  if (r[1] ~= 'Q' and r[1] ~= 'D') or not r[5] then
    redis.call('ZREM', KEYS[2], id)
    replies[task] = 'LOST'
  elseif tonumber(r[5]) > now then
    replies[task] = 'EARLY'
  else
    local position = redis.call('XADD', KEYS[1], '0-*', 'type', 'failed', 'task', id, 'first', r[3], 'e', event)
    redis.call('HSET', record, 's', 'Z', 'o', 'failed', 'e', string.sub(position, 3), 'q', '')
    redis.call('HDEL', record, 'p')
    redis.call('EXPIRE', record, (r[4] and r[4] ~= '') and r[4] or ARGV[1])
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
    if r[2] and r[2] ~= '' then
      -- The group may not exist yet, when no analyzer has ever served the lane.
      redis.pcall('XACK', lane, group, r[2])
      redis.call('XDEL', lane, r[2])
    end
    replies[task] = 'OK'
  end
end
return replies
