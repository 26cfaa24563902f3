#!lua
-- Accepts tasks: each becomes one `submitted` event, one record and one lane entry.
-- Refused when memory is short (no allow-oom): intake is what gives way first.
--
-- KEYS  journal, lanes, waiting tasks with a deadline, then per task: lane, record, idempotency key (the record again when there is none)
-- ARGV  lane capacity (0 = none), seconds to keep an idempotency key,
--       then per task: id, event, lane name, fingerprint ('' = ours), seconds to keep the record ('' = default),
--       context ('' = default tenant, no trace), deadline in ms ('' = none)
-- reply per task: {'OK', id, n} | {'DUP', id, n} | {'CONFLICT', id} | {'FULL', id}
local replies = {}
local announced = {}
local task = 0
for a = 3, #ARGV, 7 do
  local lane, record, idem = KEYS[4 + task * 3], KEYS[5 + task * 3], KEYS[6 + task * 3]
  local id, event, name, print = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  local keep, context, deadline = ARGV[a + 4], ARGV[a + 5], ARGV[a + 6]
  task = task + 1

  -- Read and judge everything before the first write: a script that fails half-way is not rolled back.
  local reply
  if idem ~= record then
    local seen = redis.call('GET', idem)
    if seen then
      -- From the end, where the id has a length that is known: a fingerprint is any bytes, a bar among them.
      local known = string.sub(seen, -36)
      reply = string.sub(seen, 1, -38) == print and { 'DUP', known, '' } or { 'CONFLICT', known }
    end
  end
  if not reply then
    local known = redis.call('HMGET', record, 'f', 'h')
    if known[1] then
      reply = (known[2] or '') == print and { 'DUP', id, known[1] } or { 'CONFLICT', id }
    elseif tonumber(ARGV[1]) > 0 and redis.call('XLEN', lane) >= tonumber(ARGV[1]) then
      reply = { 'FULL', id }
    end
  end

  if not reply then
    local position = redis.call('XADD', KEYS[1], '0-*', 'type', 'submitted', 'task', id, 'first', '0', 'e', event)
    local n = string.sub(position, 3)
    local token = redis.call('XADD', lane, '*', 'i', id, 'a', '1', 'm', context)
    if not announced[name] then
      redis.call('SADD', KEYS[2], name)
      announced[name] = true
    end
    if print == '' and keep == '' and context == '' then
      redis.call('HSET', record, 's', 'Q', 'a', '1', 'q', token, 'f', n, 'l', name)
    else
      redis.call('HSET', record, 's', 'Q', 'a', '1', 'q', token, 'f', n, 'l', name, 'h', print, 'u', keep,
        'm', context)
    end
    if deadline ~= '' then
      redis.call('HSET', record, 'd', deadline)
      redis.call('ZADD', KEYS[3], deadline, id)
    end
    if idem ~= record then redis.call('SET', idem, print .. '|' .. id, 'EX', ARGV[2]) end
    reply = { 'OK', id, n }
  end
  replies[task] = reply
end
return replies
