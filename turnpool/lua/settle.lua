-- End a running turn, fenced by the attempt: last events, status, terminal event, messages, next turn of the session.
-- The same call twice settles once.
-- KEYS[1] prefix of the partition.
-- ARGV as named below, then events (kind, fields, …) as many as `events` says (count of values), then messages (JSON).
--   fields: JSON members of the terminal event; usage: JSON object or ''; finish_reason: or ''; *_ttl in seconds.
-- Returns {1, queue that has a ready turn more or ''}, or {0} if the attempt no longer holds the turn, or
--   {below zero} as append.lua.

local a = arguments({'id', 'attempt', 'base', 'status', 'fields', 'output', 'usage', 'finish_reason', 'error_code', 'error_message',
  'session_ttl', 'log_ttl', 'events'})
local turn = load_turn(a.id)
if turn and turn.attempt == a.attempt and turn.status == a.status then return {1, ''} end
if not holds(turn, a.attempt) then return {0} end
if misses(turn, a.base) then return {-turn.seq} end

local count = tonumber(a.events)
local events, messages = {}, {}
for i, value in ipairs(a.rest) do table.insert(i <= count and events or messages, value) end
write_from(turn, tonumber(a.base), events)
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local result = {'output', a.output, 'usage', a.usage, 'finish_reason', a.finish_reason, 'error_code', a.error_code, 'error_message', a.error_message}
return {1, finish(turn, a.status, a.fields, kept, messages, result)}
