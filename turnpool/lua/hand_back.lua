-- Give a running turn to the other workers, fenced by the attempt; it does not count as lost. The same call twice is harmless.
-- A turn that is to be cancelled ends here, since the next worker may be long in coming.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, attempt, seq of the last event before these, session_ttl, log_ttl in seconds, then as many steps as
--   `steps` says, that are recorded as under way and were not called, then the last events as kind, fields.
-- Returns the queue that has a ready turn more, or '' if the attempt no longer holds the turn, or a number
--   below zero as append.lua.

local a = arguments({'id', 'attempt', 'base', 'session_ttl', 'log_ttl', 'steps'})
local turn = load_turn(a.id)
if not holds(turn, a.attempt) then return '' end
if misses(turn, a.base) then return -turn.seq end

local events = {}
for i, value in ipairs(a.rest) do
  if i > tonumber(a.steps) then
    table.insert(events, value)
  elseif redis.call('HGET', key_steps(a.id), value) == '' then
    redis.call('HDEL', key_steps(a.id), value)
  end
end
write_from(turn, tonumber(a.base), events)
if turn.cancel then return cancel(turn, {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}) end
requeue(turn, 'drained')
return turn.queue
