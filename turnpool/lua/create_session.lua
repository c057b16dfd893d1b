-- Create a session.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, tenant, metadata (JSON), session_ttl in seconds.
-- Returns created_at in ms, or 0 if it is there already.

local a = arguments({'id', 'tenant', 'metadata', 'session_ttl'})
local session = key_session(a.id)
if redis.call('EXISTS', session) == 1 then return 0 end
redis.call('HSET', session, 'tenant', a.tenant, 'created_at', now, 'metadata', a.metadata)
redis.call('EXPIRE', session, a.session_ttl)
redis.call('ZADD', key_sessions(a.tenant), now, a.id)
live(key_sessions(a.tenant), a.session_ttl)
return now
