-- Delete a session and its turns; cancel what waits or runs. What runs is deleted once it has ended.
-- The line stays: no turn id comes twice, and the next turn waits until the last one has ended.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, session_ttl, log_ttl in seconds.
-- Returns 1, or 0 if there is no such session of the tenant.

local a = arguments({'id', 'tenant', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session, line = key_session(a.id), key_line(a.id)
if redis.call('HGET', session, 'tenant') ~= a.tenant then return 0 end
for _, id in ipairs(redis.call('LRANGE', key_pending(a.id), 0, -1)) do stop(load_turn(id), kept) end
local head = redis.call('HGET', line, 'head')
if head then stop(load_turn(head), kept) end
for n = tonumber(redis.call('HGET', line, 'n') or 0), 1, -1 do
  local id = a.id .. '.' .. n
  if redis.call('HGET', key_turn(id), 'status') == 'in_progress' then
    redis.call('HSET', key_turn(id), 'deleted', 1)
  else
    redis.call('DEL', key_turn(id), key_log(id), key_steps(id))
  end
end
redis.call('DEL', session, key_messages(a.id), key_pending(a.id))
redis.call('ZREM', key_sessions(a.tenant), a.id)
return 1
