-- Add events to the logs of running turns, each turn fenced by its attempt. The same call twice adds them once.
-- KEYS[1] prefix of the partition.
-- ARGV: for each turn its id, attempt, seq of the last event before these, how many values follow, and these: kind, fields
--   (JSON members) for each event.
-- Returns for each turn 1, or 0 if the attempt no longer holds it; below zero, the seq of its log's last event, if events
--   before these are missing: the server has lost them in a restart or fail-over. Then nothing is added to it.

local function append(id, attempt, base, events)
  local values = redis.call('HMGET', key_turn(id), 'attempt', 'status', 'seq', 'session', 'n')
  local turn = {id = id, attempt = values[1], status = values[2], seq = values[3], session = values[4], n = values[5]}
  if not holds(turn, attempt) then return 0 end
  if misses(turn, base) then return -turn.seq end
  write_from(turn, tonumber(base), events)
  keep(turn)
  return 1
end

local replies = {}
local i = 1
while i <= #ARGV do
  local events = {}
  for n = i + 4, i + 3 + ARGV[i + 3] do table.insert(events, ARGV[n]) end
  table.insert(replies, append(ARGV[i], ARGV[i + 1], ARGV[i + 2], events))
  i = i + 4 + #events
end
return replies
