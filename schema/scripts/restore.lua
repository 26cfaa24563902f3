#!lua flags=allow-oom
-- Makes the record of a task that is not over anew, as the journal has it, and puts it where analyzers and janitors find it.
-- No event: nothing has happened to the task.
--
-- KEYS  lanes, lane, delayed, waiting tasks with a deadline, record, journal
-- ARGV  id, lane name, state (Q, P or D), attempt, number of its `submitted` event, worker ('' = none), number of its latest
--       event ('' = none after the first), due time in ms, deadline in ms ('' = none), context, seconds to keep it after its
--       end, `submitted` event
-- reply 'OK' | 'CHANGED' (there is a record)
local lane, delayed, expiring, record, id = KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1]
local state, attempt, first, deadline, context = ARGV[3], ARGV[4], ARGV[5], ARGV[9], ARGV[10]
if redis.call('EXISTS', record) == 1 then return 'CHANGED' end
-- A key of another kind is an error here, before anything is written.
redis.call('SISMEMBER', KEYS[1], ARGV[2])
if state == 'D' then redis.call('ZSCORE', delayed, id) else redis.call('XLEN', lane) end
if deadline ~= '' then redis.call('ZSCORE', expiring, id) end
-- A journal that was trimmed beyond the task's first event had left it in the record.
local is_trimmed = #redis.call('XRANGE', KEYS[6], '0-' .. first, '0-' .. first) == 0

redis.call('SADD', KEYS[1], ARGV[2])
redis.call('HSET', record, 's', state, 'a', attempt, 'q', '', 'f', first, 'l', ARGV[2], 'm', context, 'u', ARGV[11])
if ARGV[6] ~= '' then redis.call('HSET', record, 'w', ARGV[6]) end
if ARGV[7] ~= '' then redis.call('HSET', record, 'c', ARGV[7]) end
if is_trimmed then redis.call('HSET', record, 'p', ARGV[12]) end
if deadline ~= '' then
  redis.call('HSET', record, 'd', deadline)
  if state ~= 'P' then redis.call('ZADD', expiring, deadline, id) end
end
if state == 'D' then
  redis.call('ZADD', delayed, ARGV[8], id)
else
  -- An attempt that runs ends like that of any silent holder: nobody may begin its entry.
  redis.call('HSET', record, 'q', redis.call('XADD', lane, '*', 'i', id, 'a', attempt, 'm', context))
end
return 'OK'
