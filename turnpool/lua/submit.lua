-- Accept a turn: idempotency, the session's order, limits; make it ready if nothing of its session is before it.
-- KEYS[1] prefix of the partition.
-- ARGV as named below: input is messages (JSON), one a line, params and metadata JSON objects, deadline in ms from now,
--   idempotency_key a digest or '', traceparent of W3C or '', wake_up a Celery message for the list `wakeups` in this database
--   or '' if that is elsewhere, weight the tenant's share, elsewhere the turns that wait in the
--   queue's other partitions, session_ttl, log_ttl in seconds.
-- Returns {'accepted', turn id, created_at in ms, queues woken by it and by what it interrupted …}
--   or {'replayed', turn id} or {'idempotency_mismatch' | 'queue_full' | 'session_full'}
--   or {'session_busy', turn id of the head}.

local a = arguments({'session_id', 'tenant', 'weight', 'queue', 'agent', 'priority', 'input', 'params', 'metadata',
  'deadline', 'on_busy', 'idempotency_key', 'body_digest', 'traceparent', 'wakeups', 'wake_up', 'elsewhere', 'max_queued', 'max_session_queued', 'session_ttl', 'log_ttl'})
local kept = {session = tonumber(a.session_ttl), log = tonumber(a.log_ttl)}
local session = key_session(a.session_id)
local pending = key_pending(a.session_id)

local line = key_line(a.session_id)
local head = redis.call('HGET', line, 'head')

local remembered = key_idempotency(a.session_id, a.idempotency_key)
if a.idempotency_key ~= '' then
  local digest, id = string.match(redis.call('GET', remembered) or '', '^(%S+) (%S+)')
  if id and redis.call('EXISTS', key_turn(id)) == 1 then
    if digest ~= a.body_digest then return {'idempotency_mismatch'} end
    return {'replayed', id}
  end
end

local reply = {'accepted', '', now}
if head and redis.call('EXISTS', key_turn(head)) == 0 then
  local queue = forget(head)
  if queue ~= '' then table.insert(reply, queue) end
  head = redis.call('HGET', line, 'head')
end
if head and a.on_busy == 'reject' then return {'session_busy', head} end
local waiting = redis.call('ZCARD', key_queued(a.queue)) + a.elsewhere
if waiting >= tonumber(a.max_queued) then return {'queue_full'} end
if head and a.on_busy ~= 'interrupt' and redis.call('LLEN', pending) >= tonumber(a.max_session_queued) then
  return {'session_full'}
end

if head and a.on_busy == 'interrupt' then
  -- First those behind the head, so that none of them takes its place.
  for _, id in ipairs(redis.call('LRANGE', pending, 0, -1)) do stop(load_turn(id), kept) end
  stop(load_turn(head), kept)
  head = redis.call('HGET', line, 'head')
end

-- All of the session lives at least until the turn must have ended, then its own time.
local life = math.ceil(a.deadline / 1000) + kept.session + kept.log
local n = redis.call('HINCRBY', line, 'n', 1)
local turn = {id = a.session_id .. '.' .. n, session = a.session_id, n = n, tenant = a.tenant, weight = a.weight,
  queue = a.queue, agent = a.agent, status = 'queued', priority = a.priority, attempt = 0, losses = 0, said = 0, seq = 0,
  input = a.input, params = a.params, metadata = a.metadata, created_at = now, queued_at = now,
  deadline_at = now + a.deadline}
if a.traceparent ~= '' then turn.traceparent = a.traceparent end
if a.idempotency_key ~= '' then turn.keyed = 1 end
-- Priority, then age: the time, so that partitions compare, or one more than the last turn's. The sum is exact in a double.
local age = math.max(now, (redis.call('GET', key_newest()) or 0) + 1)
redis.call('SET', key_newest(), string.format('%.0f', age), 'EX', 7 * 86400)
turn.score = string.format('%.0f', a.priority * 1e13 + age)
local position = a.on_busy == 'interrupt' and redis.call('ZCARD', key_queued(a.queue)) + a.elsewhere or waiting
if head then position = position + (redis.call('HGET', key_turn(head), 'status') == 'in_progress' and 1 or 0) end

write(turn, 'turn.queued', ',"position":' .. position)
redis.call('EXPIRE', key_log(turn.id), life)
redis.call('HSET', key_turn(turn.id), unpack(to_list(turn)))
redis.call('EXPIRE', key_turn(turn.id), life)
if redis.call('EXISTS', session) == 0 then
  redis.call('HSET', session, 'created_at', now, 'metadata', '{}')
end
redis.call('ZADD', key_sessions(a.tenant), now, a.session_id)
prune_sessions(a.tenant, kept)
live(key_sessions(a.tenant), life)
if a.idempotency_key ~= '' then redis.call('SET', remembered, a.body_digest .. ' ' .. turn.id, 'EX', 86400) end

wait_in_line(turn)
if head then
  redis.call('RPUSH', pending, turn.id)
  live(pending, life)
else
  redis.call('HSET', line, 'head', turn.id)
  make_ready(turn)
end
live(line, life + 60)
for _, key in ipairs({session, key_messages(a.session_id)}) do live(key, life) end
redis.call('EXPIRE', key_service(a.queue), life)
reply[2] = turn.id
-- Here it saves the turn a round trip. The list is Celery's: whatever is wrong with it, the turn is accepted.
if not head and (a.wake_up == '' or type(redis.pcall('LPUSH', a.wakeups, a.wake_up)) == 'table') then
  table.insert(reply, a.queue)
end
return reply
