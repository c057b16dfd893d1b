-- Count the ready turns of a queue in this partition.
-- KEYS[1] prefix of the partition.
-- ARGV: queue.
-- Returns how many there are.

return count_ready(ARGV[1])
