#!lua flags=allow-oom
-- Takes over one lane entry whose holder has been silent for longer than the lease. The idle time and the state the
-- decision was made on are checked again here, so a holder that came back in between keeps its task.
--
-- KEYS  journal, lane, delayed, dead letters, record, waiting tasks with a deadline
-- ARGV  group, token, least idle time in ms, expected state (`s` of the record, '' = no such task),
--       default seconds to keep an ended record, now in ms,
--       action: drop | requeue | retry | fail
--       retry: event, next attempt, due time in ms      fail: event, dead-letter event
-- reply 'OK' | 'ALIVE' (not idle any more) | 'CHANGED' (decide again)
local journal, lane, delayed, dead, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local group, token, action = ARGV[1], ARGV[2], ARGV[7]
if #redis.call('XPENDING', lane, group, 'IDLE', ARGV[3], token, token, 1) == 0 then return 'ALIVE' end
local r = redis.call('HMGET', record, 's', 'q', 'f', 'a', 'u', 'm', 'd')
local live = r[2] == token and r[1] ~= 'Z'
if (live and r[1] or '') ~= ARGV[4] then return 'CHANGED' end
local id = string.sub(record, -36)
if action == 'requeue' then
  local token2 = redis.call('XADD', lane, '*', 'i', id, 'a', r[4], 'm', r[6] or '')
  redis.call('HSET', record, 'q', token2)
  redis.call('HINCRBY', record, 'r', 1)
elseif action == 'retry' then
  local n = redis.call('XADD', journal, '0-*', 'type', 'retry_scheduled', 'task', id, 'first', r[3], 'e', ARGV[8])
  redis.call('HSET', record, 's', 'D', 'a', ARGV[9], 'q', '', 'c', string.sub(n, 3))
  redis.call('HDEL', record, 'w')
  redis.call('ZADD', delayed, ARGV[10], id)
  if r[7] then redis.call('ZADD', KEYS[6], r[7], id) end
elseif action == 'fail' then
  local position = redis.call('XADD', journal, '0-*', 'type', 'failed', 'task', id, 'first', r[3], 'e', ARGV[8])
  redis.call('XADD', journal, '0-*', 'type', 'dead_lettered', 'task', id, 'first', r[3], 'e', ARGV[9])
  -- The token goes, so that the silent holder's late call is told LOST and not DONE.
  redis.call('HSET', record, 's', 'Z', 'o', 'failed', 'e', string.sub(position, 3), 'q', '')
  redis.call('HDEL', record, 'p')
  redis.call('EXPIRE', record, (r[5] and r[5] ~= '') and r[5] or ARGV[5])
  redis.call('ZADD', dead, ARGV[6], id)
  if r[7] then redis.call('ZREM', KEYS[6], id) end
end
redis.call('XACK', lane, group, token)
redis.call('XDEL', lane, token)
return 'OK'
