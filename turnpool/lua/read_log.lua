-- Read a page of a turn's log; nothing changes.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, seq of the last event before the page, most events, most bytes.
-- Returns SSE frames: the first of any size, then those that fit.

local a = arguments({'id', 'after', 'limit', 'bytes'})
local log, last = key_log(a.id), '(' .. a.after .. '-0'

-- `e` is the first field of an entry; another release may have put others before it.
local function frame_of(fields)
  if fields[1] == 'e' then return fields[2] end
  return to_table(fields).e
end

return read_page(tonumber(a.limit), tonumber(a.bytes), function(_, count)
  local entries = redis.call('XRANGE', log, last, '+', 'COUNT', count)
  if #entries > 0 then last = '(' .. entries[#entries][1] end
  for i = 1, #entries do entries[i] = frame_of(entries[i][2]) end
  return entries
end)
