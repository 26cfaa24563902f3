#!lua flags=allow-oom
-- Puts a task that is not over back on its lane, among the delayed ones, or among those with a deadline, where its record says
-- it should be and it is not. No event: nothing has happened to the task.
--
-- KEYS  lanes, lane, delayed, waiting tasks with a deadline, record
-- ARGV  id, lane name, state and token as they were seen, due time in ms of a delayed one
-- reply 'OK' | 'FINE' (nothing is missing) | 'CHANGED' (not as it was seen)
local lane, delayed, expiring, record, id = KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1]
local r = redis.call('HMGET', record, 's', 'q', 'a', 'd', 'm')
local state, token, attempt, deadline, context = r[1], r[2] or '', r[3], r[4], r[5] or ''
if state ~= ARGV[3] or token ~= ARGV[4] or state == 'Z' then return 'CHANGED' end
-- A key of another kind is an error here, before anything is written.
redis.call('SISMEMBER', KEYS[1], ARGV[2])
local is_placed
if state == 'D' then
  is_placed = redis.call('ZSCORE', delayed, id)
else
  is_placed = redis.call('XLEN', lane) > 0 and token ~= '' and #redis.call('XRANGE', lane, token, token) > 0
end
local is_dated = state == 'P' or not deadline or redis.call('ZSCORE', expiring, id)
if is_placed and is_dated then return 'FINE' end

if not is_placed then
  redis.call('SADD', KEYS[1], ARGV[2])
  if state == 'D' then
    redis.call('ZADD', delayed, ARGV[5], id)
  else
    -- An attempt that runs ends like that of any silent holder: nobody may begin its entry.
    redis.call('HSET', record, 'q', redis.call('XADD', lane, '*', 'i', id, 'a', attempt, 'm', context))
  end
end
if not is_dated then redis.call('ZADD', expiring, deadline, id) end
return 'OK'
