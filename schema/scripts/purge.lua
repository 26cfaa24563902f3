#!lua flags=allow-oom
-- Takes letters off the dead-letter list for good: each that is on it becomes one `purged` event.
--
-- KEYS  journal, dead letters, then per letter: note of its purge
-- ARGV  seconds to keep a note, then per letter: task id, its first n, event
-- reply per letter: 1 purged, now or by an earlier call with this event | 0 it is not on the list
local replies = {}
for a = 2, #ARGV, 3 do
  local id, event, note = ARGV[a], ARGV[a + 2], KEYS[3 + #replies]
  if redis.call('ZSCORE', KEYS[2], id) then
    redis.call('XADD', KEYS[1], '0-*', 'type', 'purged', 'task', id, 'first', ARGV[a + 1], 'e', event)
    redis.call('ZREM', KEYS[2], id)
    redis.call('SET', note, event, 'EX', ARGV[1])
    replies[#replies + 1] = 1
  else
    -- An answer may be lost on the way, and whoever asked asks again.
    replies[#replies + 1] = redis.call('GET', note) == event and 1 or 0
  end
end
return replies
