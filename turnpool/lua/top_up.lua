-- Count the wake-ups that a queue misses, or has too many: ready turns less wake-ups in the broker's list, the lesser
-- of two looks in a row.
-- One worker's look counts for all, so that many workers do not each make up for the same loss.
-- KEYS[1] prefix of the partition.
-- ARGV: queue, wake-ups in the broker's list, least time between two looks in ms, ready turns in the other partitions.
-- Returns how many to publish; below zero, how many to take away.

local a = arguments({'queue', 'listed', 'interval', 'elsewhere'})
local ready = count_ready(a.queue) + a.elsewhere
local key = key_missing(a.queue)
local last = redis.call('HMGET', key, 'count', 'at')
if last[2] and now - last[2] < tonumber(a.interval) then return 0 end
local count = ready - a.listed
local before = tonumber(last[1] or 0)
local change = 0
if count > 0 and before > 0 then change = math.min(count, before) end
if count < 0 and before < 0 then change = math.max(count, before) end
redis.call('HSET', key, 'count', count - change, 'at', now)
redis.call('EXPIRE', key, 60)
return change
