-- Read a page of a session's messages; nothing changes.
-- KEYS[1] prefix of the partition.
-- ARGV: session id, index of the page's first message (0 is the oldest, -1 the newest), step to the next (1 or -1),
--   most messages, most bytes.
-- Returns {index of the next page's first message, or -1 if there is none; messages (JSON) …}, the first message of any
--   size, then those that fit; or 0 if there is no such session.

local a = arguments({'id', 'from', 'step', 'limit', 'bytes'})
if redis.call('EXISTS', key_session(a.id)) == 0 then return 0 end
local key, step = key_messages(a.id), tonumber(a.step)
local newest = redis.call('LLEN', key) - 1
local from = tonumber(a.from)
if from < 0 or (step < 0 and from > newest) then from = newest end

local page = read_page(tonumber(a.limit), tonumber(a.bytes), function(taken, count)
  local first = from + step * taken
  if first < 0 then return {} end
  if step > 0 then return redis.call('LRANGE', key, first, first + count - 1) end
  local messages = redis.call('LRANGE', key, math.max(first - count + 1, 0), first)
  local reversed = {}
  for i = #messages, 1, -1 do table.insert(reversed, messages[i]) end
  return reversed
end)

local following = from + step * #page
if following < 0 or following > newest then following = -1 end
table.insert(page, 1, following)
return page
