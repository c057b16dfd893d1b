-- Take the turns whose lease ran out from their workers: back to the queue, or ended if cancelled or lost too often.
-- When nobody was heard for half a lease, Redis itself was away (or every worker): the living then get one whole
-- lease to renew before anything is reaped.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, lease in ms, losses at which a turn fails, session_ttl, log_ttl in seconds.
-- Returns {turn id of each that went back to the queue …; turn id of each that ended …; queues woken …}.

local a = arguments({'queue', 'lease', 'max_attempts', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local lease = tonumber(a.lease)
local seen = redis.call('HMGET', key_pulse(), 'at', 'grace')
local grace = tonumber(seen[2] or 0)
if seen[1] and now - seen[1] > lease / 2 then grace = now + lease end
-- Longer than that only if the clock has jumped back.
grace = math.min(grace, now + lease)
redis.call('HSET', key_pulse(), 'at', now, 'grace', grace)
-- A day and more: no turn lives longer, so none that Redis may have been away for.
redis.call('EXPIRE', key_pulse(), 90000)

local requeued, ended, woken = {}, {}, {}
if now < grace then return {requeued, ended, woken} end
-- A hundred at a time keeps the script short; the worker calls again for the rest.
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_leases(a.queue), '-inf', now, 'LIMIT', 0, 100)) do
  local turn = load_turn(id)
  if not turn or turn.status ~= 'in_progress' then
    redis.call('ZREM', key_leases(a.queue), id)
    local queue = turn and '' or forget(id)
    if queue ~= '' then table.insert(woken, queue) end
  else
    local losses = redis.call('HINCRBY', key_turn(id), 'losses', 1)
    local queue = a.queue
    if turn.cancel then
      queue = cancel(turn, kept)
    elseif tonumber(turn.deadline_at) <= now then
      queue = fail(turn, 'deadline_exceeded', 'The deadline passed, and the worker did not end the turn.', kept)
    elseif losses >= tonumber(a.max_attempts) then
      queue = fail(turn, 'worker_lost', 'The turn lost its worker ' .. losses .. ' times.', kept)
    else
      requeue(turn, 'worker_lost')
      table.insert(requeued, id)
    end
    if turn.status ~= 'queued' then table.insert(ended, id) end
    if queue ~= '' then table.insert(woken, queue) end
  end
end
return {requeued, ended, woken}
