-- Take the best ready turn of a queue: of the tenant with the least service so far (weighted), by priority then age.
-- Turns of agents that the worker does not have are parked: only a worker that has the agent takes them from there.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, worker id, claim (a random name), again (1 if an earlier call of this name may have been carried out, else 0),
--   lease in ms, session_ttl, log_ttl in seconds, agents of the worker (',name,name,' or '' for all), from ('ready' or
--   'parked'), then the agents that go on from a partial answer.
-- Returns {turn as field, value, … with remaining, ms until its deadline, and partial, the text that stands; messages (JSON) …; steps as name, result, …; queues woken …}, turn empty if there is none.

local a = arguments({'queue', 'worker', 'claim', 'again', 'lease', 'session_ttl', 'log_ttl', 'agents', 'from'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local service = key_service(a.queue)
local woken = {}

-- The turn that this very claim has taken before, if its answer was lost.
local function taken_before()
  for _, id in ipairs(redis.call('ZRANGE', key_leases(a.queue), 0, -1)) do
    if redis.call('HGET', key_turn(id), 'claim') == a.claim then return load_turn(id) end
  end
  return nil
end

local function is_served(agent)
  return a.agents == '' or a.agents:find(',' .. agent .. ',', 1, true)
end

local parked = 0
local function park(turn)
  parked = parked + 1
  redis.call('ZADD', key_parked(a.queue, turn.agent), turn.score, turn.id)
  redis.call('ZADD', key_unserved(a.queue), 0, turn.agent)
end

-- The turn that an index named, or nil if it is gone.
local function load_or_forget(id)
  local turn = load_turn(id)
  local queue = turn and '' or forget(id)
  if queue ~= '' then table.insert(woken, queue) end
  return turn
end

-- The next turn in line, or nil; its tenant is charged.
local function next_ready()
  local first = redis.call('ZRANGE', key_tenants(a.queue), 0, 0, 'WITHSCORES')
  local tenant, start = first[1], tonumber(first[2])
  if not tenant then return nil end
  -- A hundred at most, as below; another claim goes on.
  if parked == 100 then
    table.insert(woken, a.queue)
    return nil
  end
  local id = redis.call('ZPOPMIN', key_ready(a.queue, tenant))[1]
  if redis.call('EXISTS', key_ready(a.queue, tenant)) == 0 then redis.call('ZREM', key_tenants(a.queue), tenant) end
  local turn = id and load_or_forget(id)
  if not turn then return next_ready() end
  if not is_served(turn.agent) then
    park(turn)
    return next_ready()
  end
  local finish_tag = start + 1 / tonumber(turn.weight)
  redis.call('HSET', service, 'v', start, 't:' .. tenant, finish_tag)
  redis.call('EXPIRE', service, kept.session + kept.log)
  redis.call('ZADD', key_tenants(a.queue), 'XX', finish_tag, tenant)
  return turn
end

-- The next parked turn of an agent that the worker has, or nil. Its tenant came first when it was parked.
local function next_parked()
  for _, agent in ipairs(redis.call('ZRANGE', key_unserved(a.queue), 0, -1)) do
    local id = is_served(agent) and redis.call('ZRANGE', key_parked(a.queue, agent), 0, 0)[1]
    if id then
      take_out(key_parked(a.queue, agent), id, key_unserved(a.queue), agent)
      local turn = load_or_forget(id)
      -- An earlier release's worker ends turns without looking here.
      if turn and turn.status == 'queued' then return turn end
      return next_parked()
    end
  end
  return nil
end

local next_turn = a.from == 'parked' and next_parked or next_ready

-- Give the turn to the worker, as a new attempt.
local function take(turn)
  turn.attempt = turn.attempt + 1
  turn.status, turn.worker, turn.claim, turn.started_at = 'in_progress', a.worker, a.claim, turn.started_at or now
  leave_line(turn)
  if turn.restart then
    write(turn, 'turn.restarted', ',"reason":"' .. turn.restart .. '","keep":' .. characters(turn.partial))
  end
  write(turn, 'turn.in_progress', ',"worker":' .. json(a.worker))
  -- For reap.lua, to see whether this attempt got further than the one before it.
  turn.claimed_at, turn.base, turn.said = now, turn.seq, turn.partial == '' and turn.said or 0
  keep(turn, 'attempt', turn.attempt, 'status', turn.status, 'worker', a.worker, 'claim', a.claim,
    'started_at', turn.started_at, 'claimed_at', now, 'base', turn.base, 'said', turn.said)
end

local taken = a.again == '1' and taken_before()
local turn = taken or next_turn()
local failed = 0
-- A hundred at most, so that one call stays short; the keeper's look takes the rest.
while turn and not taken and tonumber(turn.deadline_at) <= now do
  failed = failed + 1
  local queue = fail(turn, turn.attempt == '0' and 'expired' or 'deadline_exceeded',
    'The deadline passed while the turn waited.', kept)
  if queue ~= '' then table.insert(woken, queue) end
  turn = failed < 100 and next_turn() or nil
end
if not turn then return {{}, {}, {}, woken} end

turn.partial = ''
for _, agent in ipairs(a.rest) do
  if turn.restart and agent == turn.agent then turn.partial = streamed(turn) end
end
redis.call('ZADD', key_leases(a.queue), now + a.lease, turn.id)
if not taken then take(turn) end

turn.remaining = turn.deadline_at - now
-- Only an earlier attempt, or an earlier call of this claim, has steps.
local steps = turn.attempt == 1 and {} or redis.call('HGETALL', key_steps(turn.id))
return {to_list(turn), redis.call('LRANGE', key_messages(turn.session), 0, -1), steps, woken}
