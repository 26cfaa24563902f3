#!lua flags=allow-oom
-- Renews leases: resets the idle time of the entries that this worker still holds.
--
-- KEYS  lane, then per task: record
-- ARGV  group, worker, then per task: token
-- reply per task: 1 held | 0 lost (taken over, cancelled or ended)
local held = {}
local alive = { 'XCLAIM', KEYS[1], ARGV[1], ARGV[2], '0' }
for i = 3, #ARGV do
  local r = redis.call('HMGET', KEYS[i - 1], 's', 'q', 'w')
  local mine = r[1] == 'P' and r[2] == ARGV[i] and r[3] == ARGV[2]
  held[i - 2] = mine and 1 or 0
  if mine then alive[#alive + 1] = ARGV[i] end
end
if #alive > 5 then
  alive[#alive + 1] = 'JUSTID'
  redis.call(unpack(alive))
end
return held
