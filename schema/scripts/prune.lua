#!lua flags=allow-oom
-- Takes consumers off a lane's group that hold nothing and have been silent for long. Checked and done in one step:
-- deleting a consumer that holds entries would strand them.
--
-- KEYS  lane
-- ARGV  group, least idle time in ms
-- reply how many were deleted
local pruned = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local c = {}
  for i = 1, #consumer, 2 do c[consumer[i]] = consumer[i + 1] end
  if c['pending'] == 0 and c['idle'] >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c['name'])
    pruned = pruned + 1
  end
end
return pruned
