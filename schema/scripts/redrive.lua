#!lua
-- Repeats an ended task as a new one: a `redriven` event for the old, a `submitted` event for the new.
-- Both live in one partition. The new task's id is derived from the old one's, so a repeated call is the same task.
--
-- KEYS  journal, lanes, lane, dead letters, new record
-- ARGV  old id, old first n, redriven event, new id, submitted event, lane name, seconds to keep the new record,
--       context ('' = default tenant, no trace)
-- reply {'OK', new id, n} | {'DUP', new id, n}
local known = redis.call('HGET', KEYS[5], 'f')
if known then return { 'DUP', ARGV[4], known } end
redis.call('XADD', KEYS[1], '0-*', 'type', 'redriven', 'task', ARGV[1], 'first', ARGV[2], 'e', ARGV[3])
local position = redis.call('XADD', KEYS[1], '0-*', 'type', 'submitted', 'task', ARGV[4], 'first', '0', 'e', ARGV[5])
local n = string.sub(position, 3)
local token = redis.call('XADD', KEYS[3], '*', 'i', ARGV[4], 'a', '1', 'm', ARGV[8])
redis.call('SADD', KEYS[2], ARGV[6])
redis.call('HSET', KEYS[5], 's', 'Q', 'a', '1', 'q', token, 'f', n, 'l', ARGV[6], 'u', ARGV[7], 'm', ARGV[8])
redis.call('ZREM', KEYS[4], ARGV[1])
return { 'OK', ARGV[4], n }
