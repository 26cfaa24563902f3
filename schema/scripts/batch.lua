#!lua flags=allow-oom
-- Closes a batch upload: one `batch_received` event, and a summary that can be read before the tables have it.
--
-- KEYS  journal, batch
-- ARGV  batch id, event, accepted, rejected, seconds to keep the summary
-- reply 'OK' | 'DUP'
if redis.call('EXISTS', KEYS[2]) == 1 then return 'DUP' end
redis.call('XADD', KEYS[1], '0-*', 'type', 'batch_received', 'task', ARGV[1], 'first', '0', 'e', ARGV[2])
redis.call('HSET', KEYS[2], 'accepted', ARGV[3], 'rejected', ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[5])
return 'OK'
