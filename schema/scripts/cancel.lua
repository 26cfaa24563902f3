#!lua flags=allow-oom
-- Withdraws a task, waiting or running: one `cancelled` event. A running attempt loses its token; whatever it still
-- delivers is refused.
--
-- KEYS  journal, lane, delayed, record, waiting tasks with a deadline
-- ARGV  group, event, default seconds to keep an ended record
-- reply {'OK', n} | {'ENDED', outcome} | {'UNKNOWN'}
local journal, lane, delayed, record = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local r = redis.call('HMGET', record, 's', 'q', 'f', 'u', 'o', 'd')
if not r[1] then return { 'UNKNOWN' } end
if r[1] == 'Z' then return { 'ENDED', r[5] or '' } end
local id = string.sub(record, -36)
local position = redis.call('XADD', journal, '0-*', 'type', 'cancelled', 'task', id, 'first', r[3], 'e', ARGV[2])
local n = string.sub(position, 3)
redis.call('HSET', record, 's', 'Z', 'o', 'cancelled', 'e', n, 'q', '')
redis.call('HDEL', record, 'p')
redis.call('EXPIRE', record, (r[4] and r[4] ~= '') and r[4] or ARGV[3])
redis.call('ZREM', delayed, id)
if r[6] then redis.call('ZREM', KEYS[5], id) end
if r[2] and r[2] ~= '' then
  -- The group may not exist yet, when no analyzer has ever served the lane.
  redis.pcall('XACK', lane, ARGV[1], r[2])
  redis.call('XDEL', lane, r[2])
end
return { 'OK', n }
