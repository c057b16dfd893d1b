-- Delete a session and its turns; cancel what waits or runs. What runs is deleted once it has ended.
-- The line stays: no turn id comes twice, and the next turn waits until the last one has ended.
-- What waits or runs is stopped by each call; of the turns each takes some hundred, so that it stays short; the session goes
--   with the last, so that a deletion that was cut off can be asked for again.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, session_ttl, log_ttl in seconds, number of the first turn to look at, when the session was created,
--   as the call before has said ('' in the first).
-- Returns two values: -1 once the session is deleted, the number to go on from until then, or 0 if there is no such session;
--   and when the session was created.

local MOST = 200
local a = arguments({'id', 'tenant', 'session_ttl', 'log_ttl', 'from', 'created'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session, line = key_session(a.id), key_line(a.id)
local created = redis.call('HGET', session, 'created_at')
-- Another call has deleted it meanwhile; this one may be new.
if a.created ~= '' and created ~= a.created then return {-1, ''} end
if not created then return {0, ''} end

local gone = redis.call('LRANGE', key_pending(a.id), 0, -1)
local head = redis.call('HGET', line, 'head')
-- Last, so that none of the others takes its place.
if head then table.insert(gone, head) end
for _, id in ipairs(gone) do stop(load_turn(id), kept) end

local from, n = tonumber(a.from), tonumber(redis.call('HGET', line, 'n') or 0)
local last = n - from < MOST
for number = from, last and n or from + MOST - 1 do table.insert(gone, a.id .. '.' .. number) end
for _, id in ipairs(gone) do
  if redis.call('HGET', key_turn(id), 'status') == 'in_progress' then
    -- It goes with its end, which may come before the last call.
    redis.call('HSET', key_turn(id), 'deleted', 1)
  else
    -- UNLINK, since a log may have thousands of entries.
    redis.call('UNLINK', key_turn(id), key_log(id), key_steps(id))
  end
end
if not last then return {from + MOST, created} end
redis.call('UNLINK', session, key_messages(a.id), key_pending(a.id))
redis.call('ZREM', key_sessions(a.tenant), a.id)
return {-1, created}
