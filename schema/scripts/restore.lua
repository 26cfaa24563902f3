#!lua flags=allow-oom
-- Puts a task that is not over back where analyzers and janitors find it, when Redis has lost its record, its lane entry or
-- its place in a sorted set: what the journal says decides. No event: nothing has happened to the task.
--
-- KEYS  lanes, lane, delayed, waiting tasks with a deadline, record, journal
-- ARGV  id, lane name, state and token of the record as they were seen ('' = no record),
--       then for a record that is gone: state (Q, P or D), attempt, number of its `submitted` event, worker ('' = none), number
--       of its latest event ('' = none after the first), due time in ms, deadline in ms ('' = none), context,
--       seconds to keep it after its end, `submitted` event
-- reply 'OK' | 'FINE' (nothing is missing) | 'CHANGED' (not as it was seen)
local lane, delayed, expiring, record, id = KEYS[2], KEYS[3], KEYS[4], KEYS[5], ARGV[1]
local r = redis.call('HMGET', record, 's', 'q', 'a', 'd', 'm')
if (r[1] or '') ~= ARGV[3] or (r[2] or '') ~= ARGV[4] then return 'CHANGED' end
local state, token, attempt, deadline, context = r[1], r[2] or '', r[3], r[4], r[5] or ''
local gone = not state
if gone then
  state, attempt, deadline, context = ARGV[5], ARGV[6], ARGV[11] ~= '' and ARGV[11], ARGV[12]
end
if state == 'Z' then return 'FINE' end

local is_placed
if gone then
  is_placed = false
elseif state == 'D' then
  is_placed = redis.call('ZSCORE', delayed, id)
else
  is_placed = token ~= '' and #redis.call('XRANGE', lane, token, token) > 0
end
local is_dated = state == 'P' or not deadline or redis.call('ZSCORE', expiring, id)
if is_placed and is_dated then return 'FINE' end
-- A journal that was trimmed beyond the task's first event had left it in the record.
local is_trimmed = gone and #redis.call('XRANGE', KEYS[6], '0-' .. ARGV[7], '0-' .. ARGV[7]) == 0

if gone then
  redis.call('HSET', record, 's', state, 'a', attempt, 'q', '', 'f', ARGV[7], 'l', ARGV[2], 'm', context, 'u', ARGV[13])
  if ARGV[8] ~= '' then redis.call('HSET', record, 'w', ARGV[8]) end
  if ARGV[9] ~= '' then redis.call('HSET', record, 'c', ARGV[9]) end
  if deadline then redis.call('HSET', record, 'd', deadline) end
  if is_trimmed then redis.call('HSET', record, 'p', ARGV[14]) end
end
if not is_placed then
  redis.call('SADD', KEYS[1], ARGV[2])
  if state == 'D' then
    redis.call('ZADD', delayed, ARGV[10], id)
  else
    -- An attempt that runs is given up in the end like that of any silent holder: nobody may begin its entry.
    redis.call('HSET', record, 'q', redis.call('XADD', lane, '*', 'i', id, 'a', attempt, 'm', context))
  end
end
if not is_dated then redis.call('ZADD', expiring, deadline, id) end
return 'OK'
