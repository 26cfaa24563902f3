#!lua flags=no-writes,allow-oom
-- Counts entries of a lane between two of its ids, a bounded number a call.
--
-- KEYS  lane
-- ARGV  id behind which to count, id before which to count, most entries of this call
-- reply {entries, id of the last of them ('' = none)}
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '(' .. ARGV[2], 'COUNT', ARGV[3])
return { #entries, #entries > 0 and entries[#entries][1] or '' }
