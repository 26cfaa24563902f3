#!lua flags=allow-oom
-- Moves the archive's mark, when nobody has moved it meanwhile.
--
-- KEYS  archive mark
-- ARGV  number it is at ('' = there is none), number it moves to
-- reply 1 moved, now or by an earlier call | 0 it is elsewhere
local mark = redis.call('GET', KEYS[1]) or ''
if mark == ARGV[2] then return 1 end
if mark ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
