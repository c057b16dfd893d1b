-- Renew all leases of a worker and say how it is.
-- KEYS[1] prefix of the partition.
-- ARGV: worker id, lease in ms, what the worker says of itself (JSON; '' where that is
--   in another partition), then turn id, attempt for each turn it runs.
-- Returns '<turn id>/<attempt>', 'lost' | 'cancelled' for each attempt that it must stop.

local a = arguments({'worker', 'lease', 'info'})
-- A worker that has missed three leases is taken for gone.
if a.info ~= '' then
  redis.call('SET', key_worker(a.worker), a.info, 'PX', 3 * a.lease)
  redis.call('ZADD', key_workers(), now + 3 * a.lease, a.worker)
  redis.call('ZREMRANGEBYSCORE', key_workers(), '-inf', now)
end
local stop = {}
local STUCK = 5000
for i = 1, #a.rest, 2 do
  local id, attempt = a.rest[i], a.rest[i + 1]
  local values = redis.call('HMGET', key_turn(id), 'attempt', 'status', 'cancel', 'queue', 'deadline_at')
  if not holds({attempt = values[1], status = values[2]}, attempt) then
    table.insert(stop, id .. '/' .. attempt)
    table.insert(stop, 'lost')
  else
    -- The worker ends a turn at its deadline. One that has not, seconds later, is stuck, and loses it.
    if now < values[5] + STUCK then redis.call('ZADD', key_leases(values[4]), now + a.lease, id) end
    if values[3] then
      table.insert(stop, id .. '/' .. attempt)
      table.insert(stop, 'cancelled')
    end
  end
end
return stop
