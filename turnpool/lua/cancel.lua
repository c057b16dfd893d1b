-- Cancel a turn: at once if it waits, by a mark for its worker if it runs.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, session_ttl, log_ttl in seconds.
-- Returns {'cancelled', queue woken or ''} | {'cancelling'} | {'ended'} | {'turn_not_found'}.

local a = arguments({'id', 'session_ttl', 'log_ttl'})
local turn = load_turn(a.id)
if not turn then return {'turn_not_found'} end
if turn.status == 'queued' then
  return {'cancelled', cancel(turn, {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)})}
elseif not has_ended(turn) then
  redis.call('HSET', key_turn(a.id), 'cancel', 1)
  return {'cancelling'}
end
return {'ended'}
