#!lua flags=allow-oom
-- Trims the journal up to a number, and leaves what is still needed of it in the records of tasks that are not over.
--
-- KEYS  journal, archive mark, then per task that may not be over, in the journal's order: record
-- ARGV  last number to trim, last number in the tables, events to keep, then per task: number of its `submitted` event
-- reply {'OK', events trimmed} (up to the number, or to the task at which 8 MiB are carried over) | {'UNMARKED'} (nothing says what is archived) | {'BEYOND', last number that may be trimmed}
local upto, folded, keep = tonumber(ARGV[1]), tonumber(ARGV[2]), math.max(1, tonumber(ARGV[3]))
local mark = tonumber(redis.call('GET', KEYS[2]) or '')
if not mark then return { 'UNMARKED' } end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local ends = last[1] and tonumber(string.sub(last[1][1], 3)) or 0
-- The last event in the tables stays: by it a projector sees that the journal is still the one it has folded.
local bound = math.max(0, math.min(mark, folded - 1, ends - keep))
if upto > bound then return { 'BEYOND', string.format('%.0f', bound) } end
-- Large documents are copied some at a time: Redis serves nobody else meanwhile.
local carried, bytes = {}, 0
for i = 3, #KEYS do
  local first = ARGV[i + 1]
  local r = redis.call('HMGET', KEYS[i], 's', 'f')
  if r[1] and r[1] ~= 'Z' and r[2] == first then
    local entry = redis.call('XRANGE', KEYS[1], '0-' .. first, '0-' .. first)
    local fields = entry[1] and entry[1][2] or {}
    for at = 1, #fields, 2 do
      if fields[at] == 'e' then
        carried[#carried + 1] = { KEYS[i], fields[at + 1] }
        bytes = bytes + #fields[at + 1]
      end
    end
    if bytes > 8388608 then
      upto = tonumber(first)
      break
    end
  end
end
for _, it in ipairs(carried) do redis.call('HSET', it[1], 'p', it[2]) end
return { 'OK', redis.call('XTRIM', KEYS[1], 'MINID', '0-' .. string.format('%.0f', upto + 1)) }
