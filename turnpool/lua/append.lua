-- Add events to the log of a running turn, fenced by the attempt. The same call twice adds them once.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, attempt, seq of the last event before these, then kind, fields (JSON members) for each event.
-- Returns 1, or 0 if the attempt no longer holds the turn; below zero, the seq of the log's last event, if events before
--   these are missing: the server has lost them in a restart or fail-over. Then nothing is added.

local a = arguments({'id', 'attempt', 'base'})
local values = redis.call('HMGET', key_turn(a.id), 'attempt', 'status', 'seq', 'session', 'n')
local turn = {id = a.id, attempt = values[1], status = values[2], seq = values[3], session = values[4], n = values[5]}
if not holds(turn, a.attempt) then return 0 end
if misses(turn, a.base) then return -turn.seq end
emit_from(turn, tonumber(a.base), a.rest)
return 1
