-- Take the turns whose lease ran out from their workers: back to the queue, aside for a trial, or ended if cancelled or
-- proven to kill workers (docs/reliability.md, "A turn that kills its worker").
-- When nobody was heard for half a lease, Redis itself was away (or every worker): the living then get one whole
-- lease to renew before anything is reaped.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, lease in ms, losses without progress at which a turn fails, session_ttl, log_ttl in seconds, partitions of the
--   store, then the agents of the worker that asks.
-- Returns {turn id of each that went back to the queue …; turn id of each that ended …; queues woken …;
--   parked turns that the worker could take, suspects, turns on trial, most that may be on trial with the first suspect or '',
--   size of the last trial; prefix}.

local a = arguments({'queue', 'lease', 'max_attempts', 'session_ttl', 'log_ttl', 'partitions'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local lease = tonumber(a.lease)
local leases, trials, suspects, isolation = key_leases(a.queue), key_trials(a.queue), key_suspects(a.queue), key_isolation(a.queue)
local requeued, ended, woken = {}, {}, {}

local function note(field, value)
  redis.call('HSET', isolation, field, value)
  redis.call('EXPIRE', isolation, 3600)
end

-- How many are on trial, and the workers that run them. What has passed its trial, or was not claimed for three leases,
-- keeps others waiting no longer.
local function look_at_trials()
  local count, workers = 0, {}
  local members = redis.call('ZRANGE', trials, 0, -1, 'WITHSCORES')
  for i = 1, #members, 2 do
    local id, since = members[i], members[i + 1]
    local values = redis.call('HMGET', key_turn(id), 'status', 'worker', 'claimed_at', 'life')
    local turn, lease_end = {claimed_at = values[3], life = values[4] or nil}, redis.call('ZSCORE', leases, id)
    if values[1] == 'in_progress' and lease_end and not outlives(turn, lived(turn, lease_end, lease), lease) then
      count = count + 1
      workers[values[2]] = true
    elseif values[1] == 'queued' and now - since < 3 * lease then
      count = count + 1
    else
      redis.call('ZREM', trials, id)
      if values[1] then redis.call('HSET', key_turn(id), 'group', '') end
    end
  end
  return count, workers
end

local function parked()
  local count = 0
  for _, agent in ipairs(redis.call('ZRANGE', key_unserved(a.queue), 0, -1)) do
    for _, served in ipairs(a.rest) do
      if served == agent then count = count + redis.call('ZCARD', key_parked(a.queue, agent)) end
    end
  end
  return count
end

local function answer(on_trial)
  local first = redis.call('ZRANGE', suspects, 0, 0)[1]
  local limit = first and redis.call('HGET', key_turn(first), 'limit') or ''
  return {requeued, ended, woken, {parked(), redis.call('ZCARD', suspects), on_trial, limit,
    tonumber(redis.call('HGET', isolation, 'size') or 0)}, {P}}
end

local seen = redis.call('HMGET', key_pulse(), 'at', 'grace')
local grace = tonumber(seen[2] or 0)
if seen[1] and now - seen[1] > lease / 2 then grace = now + lease end
-- Longer than that only if the clock has jumped back.
grace = math.min(grace, now + lease)
redis.call('HSET', key_pulse(), 'at', now, 'grace', grace)
-- A day and more: no turn lives longer, so none that Redis may have been away for.
redis.call('EXPIRE', key_pulse(), 90000)
if now < grace then return answer(1) end

local on_trial, trying = look_at_trials()

-- Count the turns that a worker has lost in one death: those that it had claimed before the first of them was missed. Its name
-- may be that of one which died before.
local function count_lost(turn)
  local n, since = string.match(redis.call('HGET', isolation, 'lost:' .. turn.worker) or '', '^(%d+) (%d+)$')
  local same = since and tonumber(since) > tonumber(turn.claimed_at or 0)
  note('lost:' .. turn.worker, string.format('%d %.0f', same and n + 1 or 1, same and since or now))
end

-- Whether its worker had no other turn. Of several partitions one cannot tell.
local function was_alone(turn)
  local lost = string.match(redis.call('HGET', isolation, 'lost:' .. turn.worker), '^%d+')
  if a.partitions ~= '1' or lost ~= '1' then return false end
  for _, id in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if id ~= turn.id and redis.call('HGET', key_turn(id), 'worker') == turn.worker then return false end
  end
  return true
end

-- Whether a worker that was lost had a turn on trial, which then is the more suspect.
local function was_trying(turn)
  return trying[turn.worker]
    or tonumber(redis.call('HGET', isolation, 'tried:' .. turn.worker) or 0) > tonumber(turn.claimed_at or 0)
end

-- Whether the lost attempt got on: a step was recorded, or more was put out than by an earlier attempt. The same output
-- again is no progress; its number of events varies a little.
local function has_progressed(turn, steps)
  if not turn.base then return false end
  return steps > tonumber(turn.steps or 0) or turn.seq - turn.base > 1.25 * turn.said
end

-- Count a loss. blame: losses in a row without progress; own: of these, the last ones in a row that were on trial alone.
local function blame(turn, lease_end)
  local steps, life = redis.call('HLEN', key_steps(turn.id)), lived(turn, lease_end, lease)
  local group = tonumber(turn.group or '')
  if has_progressed(turn, steps) then
    turn.blame, turn.own, turn.limit, group = 0, 0, '', nil
  elseif outlives(turn, life, lease) then
    turn.blame, turn.own, turn.limit, group = 1, 0, '', nil
  else
    turn.blame, turn.own = (turn.blame or 0) + 1, group == 1 and (turn.own or 0) + 1 or 0
  end
  if group then
    turn.limit = math.ceil(group / 8)
    note('tried:' .. turn.worker, now)
    note('size', 0)
  end
  if redis.call('ZREM', trials, turn.id) == 1 then on_trial = on_trial - 1 end
  turn.losses = turn.losses + 1
  redis.call('HSET', key_turn(turn.id), 'losses', turn.losses, 'blame', turn.blame, 'own', turn.own, 'limit', turn.limit or '',
    'group', '', 'life', life, 'steps', steps, 'said', math.max(turn.said or 0, turn.seq - (turn.base or turn.seq)))
end

local function is_guilty(turn)
  if turn.blame < tonumber(a.max_attempts) then return false end
  return turn.own >= 3 or was_alone(turn)
end

-- Those lost most often first; of these the attempt that began last: what kills at once has just begun.
local function set_aside(turn)
  take_back(turn, 'worker_lost')
  redis.call('ZADD', suspects, -(turn.blame * 1e13 + (turn.claimed_at or 0)), turn.id)
end

-- A turn that is proven to have killed workers explains the losses of the others: they may go on at once.
local function pardon()
  for _, id in ipairs(redis.call('ZRANGE', suspects, 0, 499)) do
    redis.call('ZREM', suspects, id)
    local turn = load_turn(id)
    if turn and turn.status == 'queued' then
      redis.call('HSET', key_turn(id), 'blame', math.min(turn.blame, 1), 'own', 0, 'limit', '')
      make_ready(turn)
      table.insert(woken, a.queue)
    end
  end
end

-- Give a turn that was lost to others, now or after a trial; or end it. Returns as finish.
local function pass_on(turn, lease_end)
  blame(turn, lease_end)
  if turn.cancel then return cancel(turn, kept) end
  if tonumber(turn.deadline_at) <= now then
    return fail(turn, 'deadline_exceeded', 'The deadline passed, and the worker did not end the turn.', kept)
  end
  if is_guilty(turn) then
    pardon()
    return fail(turn, 'worker_lost', 'The turn lost its worker ' .. turn.losses .. ' times.', kept)
  end
  table.insert(requeued, turn.id)
  if turn.blame > 0 and (turn.blame >= math.min(a.max_attempts, 2) or was_trying(turn)) then
    set_aside(turn)
    return ''
  end
  requeue(turn, 'worker_lost')
  return a.queue
end

-- A hundred at a time keeps the script short; the worker calls again for the rest.
local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
local lost = {}
for i = 1, #expired, 2 do
  local id, turn = expired[i], load_turn(expired[i])
  if turn and turn.status == 'in_progress' then
    count_lost(turn)
    table.insert(lost, {turn, tonumber(expired[i + 1])})
  else
    redis.call('ZREM', leases, id)
    local queue = turn and '' or forget(id)
    if queue ~= '' then table.insert(woken, queue) end
  end
end
for _, pair in ipairs(lost) do
  local turn, queue = pair[1], pass_on(pair[1], pair[2])
  if turn.status ~= 'queued' then table.insert(ended, turn.id) end
  if queue ~= '' then table.insert(woken, queue) end
end
return answer(on_trial)
