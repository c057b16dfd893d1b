-- Count the wake-ups that a queue misses: ready turns less wake-ups in the broker's list, the lesser of two looks in a row.
-- One worker's look counts for all, so that many workers do not each make up for the same loss.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, wake-ups in the broker's list, least time between two looks in ms.
-- Returns how many to publish.

local a = arguments({'queue', 'listed', 'interval'})
local ready = 0
for _, tenant in ipairs(redis.call('ZRANGE', key_tenants(a.queue), 0, -1)) do
  ready = ready + redis.call('ZCARD', key_ready(a.queue, tenant))
end
local key = key_missing(a.queue)
local last = redis.call('HMGET', key, 'count', 'at')
if last[2] and now - last[2] < tonumber(a.interval) then return 0 end
local count = math.max(ready - a.listed, 0)
local publish = math.min(count, tonumber(last[1] or 0))
redis.call('HSET', key, 'count', count - publish, 'at', now)
redis.call('EXPIRE', key, 60)
return publish
