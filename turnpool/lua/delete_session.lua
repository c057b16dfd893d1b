-- Delete a session and its ended turns; cancel what waits or runs. The counter stays: no turn id comes twice.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, session_ttl, log_ttl in seconds.
-- Returns 1, or 0 if there is no such session of the tenant.

local a = arguments({'id', 'tenant', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session = key_session(a.id)
if redis.call('HGET', session, 'tenant') ~= a.tenant then return 0 end
local head = redis.call('HGET', session, 'head')
for _, id in ipairs(redis.call('LRANGE', key_pending(a.id), 0, -1)) do stop(load_turn(id), kept) end
if head then stop(load_turn(head), kept) end
local newest = tonumber(redis.call('GET', key_counter(a.id)) or 0)
for n = newest, 1, -1 do
  local id = a.id .. '.' .. n
  local status = redis.call('HGET', key_turn(id), 'status')
  -- What has ended longest ago has expired first, so the first gap is the end.
  if not status then break end
  if status ~= 'in_progress' then redis.call('DEL', key_turn(id), key_log(id), key_steps(id)) end
end
redis.call('DEL', session, key_messages(a.id), key_pending(a.id))
redis.call('ZREM', key_sessions(a.tenant), a.id)
return 1
