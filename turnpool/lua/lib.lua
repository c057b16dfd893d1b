-- What the scripts share; put before each of them, after the functions of keys.py (key_session, …).
-- KEYS[1] is the partition's prefix in every script: all keys share its hash tag, so one node. DATABASE is the number of
-- the store's database. Ids of sessions and turns are scoped by their tenant (ids.py).
-- Time is the server's, in ms.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local clock = string.format('%.3f', now / 1000)

-- ARGV as a table with names; what comes after the names stays in rest.
local function arguments(names)
  local named, count = {rest = {}}, #names
  for i = 1, count do named[names[i]] = ARGV[i] end
  for i = count + 1, #ARGV do named.rest[i - count] = ARGV[i] end
  return named
end

local function to_table(flat)
  local fields = {}
  for i = 1, #flat, 2 do fields[flat[i]] = flat[i + 1] end
  return fields
end

local function to_list(fields)
  local flat, n = {}, 0
  for field, value in pairs(fields) do
    flat[n + 1], flat[n + 2] = field, tostring(value)
    n = n + 2
  end
  return flat
end

-- What a turn's record may lack if another release has written it.
local DEFAULTS = {status = 'queued', attempt = '0', losses = '0', seq = '0', weight = '1', priority = '5', input = '',
  agent = '', score = '0', created_at = now, queued_at = now, deadline_at = now + 600000}

-- The turn as a table of its fields, or nil. Fields that this release does not know stay in it.
local function load_turn(id)
  local turn = to_table(redis.call('HGETALL', key_turn(id)))
  if not turn.id then return nil end
  return setmetatable(turn, {__index = DEFAULTS})
end

-- Whether a turn has ended. One with a status of a newer release has not.
local function has_ended(turn)
  return turn.status == 'completed' or turn.status == 'failed' or turn.status == 'cancelled'
end

local function json(value) return cjson.encode(value) end

-- A client's id of a session or turn: the scoped one without its tenant.
local function unscoped(id) return id:sub(id:find(':', 1, true) + 1) end

-- Add one event to the turn's log and tell those who listen; `keep` is to follow. fields: JSON members with a comma
-- before each.
local function write(turn, kind, fields)
  turn.seq = turn.seq + 1
  local frame = 'id: ' .. turn.seq .. '\nevent: ' .. kind .. '\ndata: {"type":"' .. kind
    .. '","turn_id":"' .. unscoped(turn.id) .. '","seq":' .. turn.seq .. ',"attempt":' .. turn.attempt
    .. ',"created_at":' .. clock .. fields .. '}\n\n'
  redis.call('XADD', key_log(turn.id), turn.seq .. '-0', 'e', frame)
  -- Whoever may not be told, as by an ACL without channels, reads the log; the turn goes on.
  local told = redis.pcall('SPUBLISH', key_events(DATABASE, turn.session), turn.n .. ' ' .. frame)
  if type(told) == 'table' then redis.log(redis.LOG_WARNING, 'turnpool cannot publish: ' .. tostring(told.err)) end
end

-- Count the events that are written, with more fields of the turn and their values. After `write`: should the log
-- refuse an event, the turn does not count it.
local function keep(turn, ...)
  redis.call('HSET', key_turn(turn.id), 'seq', turn.seq, ...)
end

-- Events of a worker, as kind and fields in turn. Those up to turn.seq came in an earlier try of the same call.
local function write_from(turn, base, list)
  for i = 1, #list, 2 do
    base = base + 1
    if base > tonumber(turn.seq) then write(turn, list[i], list[i + 1]) end
  end
end

-- Whether events that a worker has written are gone: the server lost them.
local function misses(turn, base)
  return tonumber(base) > tonumber(turn.seq)
end

-- Whether the attempt still holds the turn. This is the fence of every write.
local function holds(turn, attempt)
  return turn and turn.status == 'in_progress' and turn.attempt == attempt
end

-- Let a key live at least so long, if it is there: another turn may need it longer than this one.
local function live(key, seconds)
  local left = redis.call('TTL', key)
  if left ~= -2 and left < tonumber(seconds) then redis.call('EXPIRE', key, seconds) end
end

-- Make a turn ready. A tenant that comes back after a pause starts at the queue's virtual time
-- (start-time fair queueing, Goyal, Vin, Cheng 1996): a pause earns no credit.
local function make_ready(turn)
  local service = redis.call('HMGET', key_service(turn.queue), 't:' .. turn.tenant, 'v')
  local start = math.max(tonumber(service[1] or 0), tonumber(service[2] or 0))
  redis.call('ZADD', key_ready(turn.queue, turn.tenant), turn.score, turn.id)
  redis.call('ZADD', key_tenants(turn.queue), 'NX', start, turn.tenant)
end

local function count_ready(queue)
  local ready = 0
  for _, tenant in ipairs(redis.call('ZRANGE', key_tenants(queue), 0, -1)) do
    ready = ready + redis.call('ZCARD', key_ready(queue, tenant))
  end
  return ready
end

local function wait_in_line(turn)
  redis.call('ZADD', key_queued(turn.queue), turn.queued_at, turn.id)
  redis.call('ZADD', key_deadlines(turn.queue), turn.deadline_at, turn.id)
end

local function leave_line(turn)
  if redis.call('ZREM', key_queued(turn.queue), turn.id) == 1 then
    -- How fast this grows is when a full queue has room again.
    local service = key_service(turn.queue)
    local left = redis.call('HINCRBY', service, 'left', 1)
    if left == 1 and redis.call('TTL', service) == -1 then redis.call('EXPIRE', service, 3600) end
  end
  redis.call('ZREM', key_deadlines(turn.queue), turn.id)
end

-- Take a member out of a sorted set, and that set's name out of an index of sets with its last one.
local function take_out(set, id, index, name)
  redis.call('ZREM', set, id)
  if redis.call('EXISTS', set) == 0 then redis.call('ZREM', index, name) end
end

-- Take a turn out of wherever it waits to be claimed.
local function unready(turn)
  take_out(key_ready(turn.queue, turn.tenant), turn.id, key_tenants(turn.queue), turn.tenant)
  take_out(key_parked(turn.queue, turn.agent), turn.id, key_unserved(turn.queue), turn.agent)
  redis.call('ZREM', key_suspects(turn.queue), turn.id)
end

-- Take a running turn from its worker. It waits, but nobody can claim it yet.
local function take_back(turn, reason)
  redis.call('ZREM', key_leases(turn.queue), turn.id)
  keep(turn, 'status', 'queued', 'restart', reason, 'worker', '')
  turn.status = 'queued'
  wait_in_line(turn)
end

-- Give a running turn back to the queue, at its old place.
local function requeue(turn, reason)
  take_back(turn, reason)
  make_ready(turn)
end

-- How long an attempt has lived for certain, in ms: until its worker last renewed the lease, which ends at `lease_end`.
local function lived(turn, lease_end, lease)
  return turn.claimed_at and math.max(lease_end - lease - turn.claimed_at, 0) or 0
end

-- Whether an attempt has lived longer than the lost one before it did (`life`), so that whatever killed that one's worker
-- would have killed this one's too. The margin: a renewal is seen at most a sixth of a lease late, and times vary.
local function outlives(turn, life, lease)
  return turn.life ~= nil and life > 1.25 * turn.life + lease / 3
end

-- Characters (not bytes) of a text in UTF-8.
local function characters(text)
  local _, following = text:gsub('[\128-\191]', '')
  return #text - following
end

-- Cut a text after so many characters (not bytes) of UTF-8.
local function left(text, characters)
  local seen = 0
  for i = 1, #text do
    local byte = text:byte(i)
    if byte < 128 or byte > 191 then
      seen = seen + 1
      if seen > characters then return text:sub(1, i - 1) end
    end
  end
  return text
end

-- What the turn has streamed so far, as its client has it. Read from the log, since it is seldom wanted.
local function streamed(turn)
  local text = {}
  for _, entry in ipairs(redis.call('XRANGE', key_log(turn.id), '-', '+')) do
    local frame = entry[2][2]
    local kind = frame:match('\nevent: ([^\n]+)\n')
    if kind == 'turn.output_text.delta' then
      table.insert(text, cjson.decode(frame:match('\ndata: ([^\n]+)\n')).text)
    elseif kind == 'turn.restarted' then
      local keep = cjson.decode(frame:match('\ndata: ([^\n]+)\n')).keep
      text = {left(table.concat(text), keep)}
    end
  end
  return table.concat(text)
end

-- The next turn of the session becomes its head. Returns the queue that has a ready turn more, or ''.
local function promote(session_id)
  local id = redis.call('LPOP', key_pending(session_id))
  if not id then
    redis.call('HDEL', key_line(session_id), 'head')
    return ''
  end
  local turn = load_turn(id)
  if not turn then return promote(session_id) end
  redis.call('HSET', key_line(session_id), 'head', id)
  make_ready(turn)
  return turn.queue
end

-- What an index names is gone: it waited so long that it is forgotten. Those behind it in its session go on.
-- Returns as promote.
local function forget(id)
  local session_id = id:match('^(.*)%.')
  if redis.call('HGET', key_line(session_id), 'head') ~= id then return '' end
  return promote(session_id)
end

-- Messages (JSON objects) to the end of the session, each with the turn's id as its first member.
local function add_messages(turn, messages)
  local id = '{"turn_id":"' .. unscoped(turn.id) .. '",'
  for _, message in ipairs(messages) do
    redis.call('RPUSH', key_messages(turn.session), id .. message:sub(2))
  end
end

-- A tenant's list forgets sessions that must have expired: a turn lives a day at most.
local function prune_sessions(tenant, kept)
  redis.call('ZREMRANGEBYSCORE', key_sessions(tenant), '-inf', now - (86400 + kept.session + kept.log) * 1000)
end

-- End a turn. kept: seconds to live {session, log}; fields: of the terminal event; messages: for the session;
-- result: more fields of the turn, with their values. Returns the queue that has a ready turn more now, or ''.
local function finish(turn, status, fields, kept, messages, result)
  write(turn, 'turn.' .. status, fields)
  keep(turn, 'status', status, 'ended_at', now, 'worker', '', unpack(result))
  redis.call('ZREM', key_leases(turn.queue), turn.id)
  if turn.status == 'queued' then
    leave_line(turn)
    unready(turn)
  end
  -- An idempotency key is kept for a day, and its turn with it.
  local life = math.max(kept.session + kept.log, turn.keyed and 86400 or 0)
  if turn.deleted then
    redis.call('DEL', key_turn(turn.id), key_log(turn.id), key_steps(turn.id))
  else
    redis.call('EXPIRE', key_log(turn.id), kept.log)
    redis.call('EXPIRE', key_steps(turn.id), kept.log)
    redis.call('EXPIRE', key_turn(turn.id), life)
  end
  -- A minute more than the turn's own, so that the number is not given again while the turn is known.
  live(key_line(turn.session), life + 60)
  if redis.call('HGET', key_line(turn.session), 'head') ~= turn.id then
    redis.call('LREM', key_pending(turn.session), 1, turn.id)
    return ''
  end
  if not turn.deleted and redis.call('EXISTS', key_session(turn.session)) == 1 then
    add_messages(turn, messages)
  end
  local woken = promote(turn.session)
  local session, left = key_session(turn.session), kept.session
  if woken == '' then
    redis.call('EXPIRE', session, left)
  else
    -- While something waits or runs, submit.lua has set a longer life.
    left = redis.call('TTL', session)
  end
  redis.call('EXPIRE', key_messages(turn.session), left)
  return woken
end

-- Fail a turn. Returns as finish.
local function fail(turn, code, message, kept)
  local error = json({code = code, message = message})
  return finish(turn, 'failed', ',"error":' .. error, kept, {}, {'error_code', code, 'error_message', message})
end

-- Cancel a turn that no worker runs; what it has streamed stays in the session, marked incomplete. Returns as finish.
local function cancel(turn, kept)
  local output = streamed(turn)
  local messages = {}
  if output ~= '' then
    for message in turn.input:gmatch('[^\n]+') do table.insert(messages, message) end
    table.insert(messages, json({role = 'assistant', content = output, status = 'incomplete'}))
  end
  return finish(turn, 'cancelled', ',"output":' .. json(output), kept, messages, {'output', output})
end

-- Cancel a turn, whatever it does: at once, or by a mark for its worker. Returns as finish.
local function stop(turn, kept)
  if turn and turn.status == 'queued' then return cancel(turn, kept) end
  if turn then redis.call('HSET', key_turn(turn.id), 'cancel', 1) end
  return ''
end

-- Read values in chunks, until there are as many, or as many bytes, as a page may have: the first of any size, then those
-- that fit. A chunk is as large as the values before it make likely to fit. read: gives the next values, from how many are
-- read already and how many are wanted.
local function read_page(limit, bytes, read)
  local page, count, size = {}, 0, 0
  local wanted = math.min(limit, 8)
  while count < limit do
    local chunk = read(count, wanted)
    for i = 1, #chunk do
      size = size + #chunk[i]
      if count > 0 and size > bytes then return page end
      count = count + 1
      page[count] = chunk[i]
    end
    if #chunk < wanted then return page end
    wanted = math.max(1, math.min(limit - count, 64, 4 * wanted, math.ceil((bytes - size) * count / size)))
  end
  return page
end
