-- Read a page of a session's turns, the newest first; nothing changes.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, number that those of the page are below ('' for none), most turns, most bytes, then the
--   fields to read of each turn, the first of which every turn has.
-- Returns {number of the next page's first turn, or 0 if there is none; values of each turn's fields …}, the first turn
--   of any size, then those that fit; or 0 if there is no such session.

-- Turns that have expired, or were deleted, and are passed over by one call.
local MOST_MISSING = 1000
local a = arguments({'id', 'before', 'limit', 'bytes'})
if redis.call('EXISTS', key_session(a.id)) == 0 then return 0 end
local n = tonumber(redis.call('HGET', key_line(a.id), 'n') or 0)
if a.before ~= '' then n = math.min(n, a.before - 1) end

local turns, size, missing = {}, 0, 0
while n > 0 and #turns < tonumber(a.limit) and missing < MOST_MISSING do
  local values = redis.call('HMGET', key_turn(a.id .. '.' .. n), unpack(a.rest))
  if values[1] then
    for _, value in ipairs(values) do size = size + (value and #value or 0) end
    if #turns > 0 and size > tonumber(a.bytes) then break end
    table.insert(turns, values)
  else
    missing = missing + 1
  end
  n = n - 1
end
table.insert(turns, 1, n)
return turns
