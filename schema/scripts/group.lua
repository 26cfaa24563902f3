#!lua flags=allow-oom
-- Creates a lane's group from the lane's first entry where it does not exist. Also when memory is short: without a group
-- nothing is taken off the lane.
--
-- KEYS  lane
-- ARGV  group
-- reply 1 created now | 0 it was there
local created = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if type(created) == 'table' and created.err then
  if string.sub(created.err, 1, 9) == 'BUSYGROUP' then return 0 end
  return created
end
return 1
