#!lua flags=allow-oom
-- Takes letters off the dead-letter list for good: each that is on it becomes one `purged` event.
--
-- KEYS  journal, dead letters
-- ARGV  per letter: task id, its first n, event
-- reply per letter: 1 purged | 0 it is not on the list
local replies = {}
for a = 1, #ARGV, 3 do
  local id = ARGV[a]
  if redis.call('ZSCORE', KEYS[2], id) then
    redis.call('XADD', KEYS[1], '0-*', 'type', 'purged', 'task', id, 'first', ARGV[a + 1], 'e', ARGV[a + 2])
    redis.call('ZREM', KEYS[2], id)
    replies[#replies + 1] = 1
  else
    replies[#replies + 1] = 0
  end
end
return replies
