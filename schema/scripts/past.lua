#!lua flags=no-writes,allow-oom
-- Waiting tasks whose deadline has passed by Redis' clock, the longest past first.
--
-- KEYS  waiting tasks with a deadline
-- ARGV  how many at most
-- reply task ids
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
