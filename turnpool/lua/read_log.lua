-- Read a page of a turn's log; nothing changes.
-- KEYS[1] prefix of the partition.
-- ARGV: turn id, seq of the last event before the page, most events, most bytes.
-- Returns SSE frames: the first of any size, then those that fit.

local a = arguments({'id', 'after', 'limit', 'bytes'})
local last = a.after

return read_page(tonumber(a.limit), tonumber(a.bytes), function(_, count)
  local frames = {}
  for _, entry in ipairs(redis.call('XRANGE', key_log(a.id), '(' .. last .. '-0', '+', 'COUNT', count)) do
    last = entry[1]:match('^%d+')
    table.insert(frames, to_table(entry[2]).e)
  end
  return frames
end)
