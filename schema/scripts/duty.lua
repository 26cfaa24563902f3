#!lua flags=allow-oom
-- Takes a janitor's duty, or keeps it. Also when memory is short: what janitors do is what frees it.
--
-- KEYS  duty
-- ARGV  process, milliseconds it is kept without being asked for again
-- reply 1 it is this process's | 0 another has it
local holder = redis.call('GET', KEYS[1])
-- One that would end later than a fresh one was taken before the clock went back, and would hold for as long.
if holder and holder ~= ARGV[1] and redis.call('PTTL', KEYS[1]) <= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
