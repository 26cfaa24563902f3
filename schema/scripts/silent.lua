#!lua flags=allow-oom
-- Finds a lane's entries whose holders have been silent for longer than the lease. One that was delivered "later than
-- now" was delivered before the clock went back, and would count as fresh until the clock is there again; its holder's
-- silence is counted from now instead.
--
-- KEYS  lane
-- ARGV  group, least idle time in ms, id to begin at, how many to look at
-- reply {id of the last one looked at ('' = there are no more), silent tokens}
local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], '+', ARGV[4])
local silent = {}
for _, entry in ipairs(held) do
  local token, holder, idle = entry[1], entry[2], entry[3]
  if idle >= tonumber(ARGV[2]) then
    silent[#silent + 1] = token
  elseif idle == 0 then
    -- Delivered this very moment, or later. Without TIME or IDLE, XCLAIM sets the moment to now.
    redis.call('XCLAIM', KEYS[1], ARGV[1], holder, '0', token, 'JUSTID')
  end
end
local last = #held == tonumber(ARGV[4]) and held[#held][1] or ''
return { last, silent }
