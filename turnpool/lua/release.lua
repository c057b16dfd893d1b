-- Let suspects run, the most suspect first, if none is on trial: whatever then kills its worker is among these.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, how many to release at most, how many are on trial together (in all partitions).
-- Returns a queue to wake for each that was released, or for what was behind one that is gone.

local a = arguments({'queue', 'most', 'group'})
local trials, suspects = key_trials(a.queue), key_suspects(a.queue)
local woken = {}
if redis.call('EXISTS', trials) == 1 then return woken end
local most, released = tonumber(a.most), 0
-- A hundred at a time keeps the script short.
for _, id in ipairs(redis.call('ZRANGE', suspects, 0, math.min(most, 100) - 1)) do
  local turn = load_turn(id)
  local limit = turn and tonumber(turn.limit or '') or most
  if released >= math.min(most, limit) then break end
  most = math.min(most, limit)
  redis.call('ZREM', suspects, id)
  if turn and turn.status == 'queued' then
    released = released + 1
    redis.call('HSET', key_turn(id), 'group', a.group)
    redis.call('ZADD', trials, now, id)
    make_ready(turn)
    table.insert(woken, a.queue)
  elseif not turn then
    local queue = forget(id)
    if queue ~= '' then table.insert(woken, queue) end
  end
end
-- A day: no turn lives longer.
redis.call('EXPIRE', trials, 90000)
redis.call('HSET', key_isolation(a.queue), 'size', a.group)
redis.call('EXPIRE', key_isolation(a.queue), 3600)
return woken
