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
-- When nobody has looked for so long, Redis itself was away, and the living need time to tell how their turns ended. Several
-- looks of an API; so much less than ALONE that a shorter absence leaves them time too.
local PAUSE = 10000
local since = math.min(tonumber(redis.call('GET', key_watched()) or now), now)
redis.call('SET', key_watched(), since, 'PX', PAUSE)
local lost = since < now - ALONE and redis.call('ZCOUNT', key_leases(a.queue), '-inf', now - ALONE) or 0
if lost == 0 then return {ended, woken} end
-- Any thousand of them keep the script short: the first may have hours to go.
local from = time[2] % math.ceil(lost / 1000) * 1000
for _, id in ipairs(redis.call('ZRANGEBYSCORE', key_leases(a.queue), '-inf', now - ALONE, 'LIMIT', from, 1000)) do
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
