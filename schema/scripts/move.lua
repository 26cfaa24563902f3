#!lua flags=allow-oom
-- Puts delayed tasks that are due back on their lanes. No event: waiting for the due time is part of the retry.
--
-- KEYS  delayed, lanes, then per task: lane, record
-- ARGV  now in ms, then per task: id, lane name
-- reply how many were moved
local moved = 0
local task = 0
for a = 2, #ARGV, 2 do
  local lane, record, id, name = KEYS[3 + task * 2], KEYS[4 + task * 2], ARGV[a], ARGV[a + 1]
  task = task + 1
  local due = redis.call('ZSCORE', KEYS[1], id)
  if due and tonumber(due) <= tonumber(ARGV[1]) then
    local r = redis.call('HMGET', record, 's', 'a', 'm')
    redis.call('ZREM', KEYS[1], id)
    if r[1] == 'D' then
      redis.call('SADD', KEYS[2], name)
      local token = redis.call('XADD', lane, '*', 'i', id, 'a', r[2], 'm', r[3] or '')
      redis.call('HSET', record, 's', 'Q', 'q', token)
      moved = moved + 1
    end
  end
end
return moved
