#!lua
-- Notes what shadow versions made of completed tasks: each becomes one `shadowed` event, one a task and version.
-- Refused when memory is short (no allow-oom): a comparison may be lost, an answer may not.
--
-- KEYS  journal, then per task: record
-- ARGV  per task: version, event
-- reply per task: 1 stored, now or before | 0 the task is not completed, or its record is gone
local replies = {}
for a = 1, #ARGV, 2 do
  local record, field = KEYS[(a + 3) / 2], 'x:' .. ARGV[a]
  local r = redis.call('HMGET', record, 's', 'o', 'f', field)
  if r[1] ~= 'Z' or r[2] ~= 'completed' then
    replies[#replies + 1] = 0
  else
    if not r[4] then
      local id = string.sub(record, -36)
      local position =
        redis.call('XADD', KEYS[1], '0-*', 'type', 'shadowed', 'task', id, 'first', r[3], 'e', ARGV[a + 1])
      redis.call('HSET', record, field, string.sub(position, 3))
    end
    replies[#replies + 1] = 1
  end
end
return replies
