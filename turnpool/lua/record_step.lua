-- Record that a step of a running turn is under way, or its result, fenced by the attempt. The first result stands.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, attempt, step, result (JSON) or '' while it is under way; without a fourth nothing is recorded.
-- Returns the recorded result, '' if there is none, or nil if the attempt no longer holds the turn.

local a = arguments({'id', 'attempt', 'name', 'result'})
local values = redis.call('HMGET', key_turn(a.id), 'attempt', 'status')
if not holds({attempt = values[1], status = values[2]}, a.attempt) then return nil end
local recorded = redis.call('HGET', key_steps(a.id), a.name) or ''
if recorded ~= '' or not a.result then return recorded end
redis.call('HSET', key_steps(a.id), a.name, a.result)
redis.call('EXPIRE', key_steps(a.id), redis.call('TTL', key_turn(a.id)))
return a.result
