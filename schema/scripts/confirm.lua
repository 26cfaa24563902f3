#!lua flags=allow-oom
-- Writes something behind which replicas can be asked what they have.
--
-- KEYS  confirmation
redis.call('INCR', KEYS[1])
