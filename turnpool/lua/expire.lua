-- Fail the turns of a queue whose deadline passed while they waited, and those that run but have no worker to end them.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, session_ttl, log_ttl in seconds.
-- Returns {turn id of each that ended …; queues woken …}.

local a = arguments({'queue', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local ended, woken = {}, {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_deadlines(a.queue), '-inf', now, 'LIMIT', 0, 100)) do
  local turn = load_turn(id)
  if not turn or turn.status ~= 'queued' then
    leave_line({id = id, queue = a.queue})
    local queue = turn and '' or forget(id)
    if queue ~= '' then table.insert(woken, queue) end
  else
    local queue = fail(turn, turn.attempt == '0' and 'expired' or 'deadline_exceeded',
      'The deadline passed while the turn waited.', kept)
    table.insert(ended, id)
    if queue ~= '' then table.insert(woken, queue) end
  end
end

-- A worker ends its turns at their deadline, another one reaps those of the dead. Only where no worker is left do both not come.
local ALONE = 20000
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_leases(a.queue), '-inf', now - ALONE)) do
  local deadline = tonumber(redis.call('HGET', key_turn(id), 'deadline_at'))
  if deadline and deadline < now - ALONE and #ended < 100 then
    local turn = load_turn(id)
    local queue = turn.cancel and cancel(turn, kept)
      or fail(turn, 'deadline_exceeded', 'The deadline passed, and no worker was left to end the turn.', kept)
    table.insert(ended, id)
    if queue ~= '' then table.insert(woken, queue) end
  end
end
return {ended, woken}
