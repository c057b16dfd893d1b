-- Delete a session and its turns; cancel what waits or runs. What runs is deleted once it has ended.
-- The line stays: no turn id comes twice, and the next turn waits until the last one has ended.
-- A call takes some hundred turns at most, so that it stays short: those that have ended first, the session with the last.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, session_ttl, log_ttl in seconds, number of the first turn to look at.
-- Returns -1 once the session is deleted, the number to go on from until then, or 0 if there is no such session of the tenant.

local MOST = 200
local a = arguments({'id', 'tenant', 'session_ttl', 'log_ttl', 'from'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session, line = key_session(a.id), key_line(a.id)
if redis.call('HGET', session, 'tenant') ~= a.tenant then return 0 end

-- What runs goes with its end, which may come before the last call.
local function remove(id)
  local status = redis.call('HGET', key_turn(id), 'status')
  if status == 'in_progress' then
    redis.call('HSET', key_turn(id), 'deleted', 1)
  elseif status ~= 'queued' then
    -- UNLINK, since a log may have thousands of entries.
    redis.call('UNLINK', key_turn(id), key_log(id), key_steps(id))
  end
end

local from, n = tonumber(a.from), tonumber(redis.call('HGET', line, 'n') or 0)
if n - from >= MOST then
  for number = from, from + MOST - 1 do remove(a.id .. '.' .. number) end
  return from + MOST
end

local left = redis.call('LRANGE', key_pending(a.id), 0, -1)
local head = redis.call('HGET', line, 'head')
-- Last, so that none of the others takes its place.
if head then table.insert(left, head) end
for _, id in ipairs(left) do stop(load_turn(id), kept) end
for number = from, n do table.insert(left, a.id .. '.' .. number) end
for _, id in ipairs(left) do remove(id) end
redis.call('UNLINK', session, key_messages(a.id), key_pending(a.id))
redis.call('ZREM', key_sessions(a.tenant), a.id)
return -1
