#!lua flags=allow-oom
-- Says who is there and what can be asked for. Also when memory is short: an analyzer that cannot start then is missing
-- where it is needed most. What is noted is small and bounded by who notes it.
--
-- KEYS  hash
-- ARGV  per note: field, value
-- reply how many fields are new
return redis.call('HSET', KEYS[1], unpack(ARGV))
