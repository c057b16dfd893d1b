-- Create a session.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, metadata (JSON), session_ttl, log_ttl in seconds.
-- Returns created_at in ms, or 0 if it is there already.

local a = arguments({'id', 'tenant', 'metadata', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session, line = key_session(a.id), key_line(a.id)
if redis.call('EXISTS', session) == 1 then return 0 end
redis.call('HSET', session, 'created_at', now, 'metadata', a.metadata)
redis.call('EXPIRE', session, kept.session)
live(line, kept.session + kept.log)
redis.call('ZADD', key_sessions(a.tenant), now, a.id)
prune_sessions(a.tenant, kept)
live(key_sessions(a.tenant), kept.session)
return now
