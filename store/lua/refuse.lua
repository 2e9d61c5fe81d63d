-- refuse corrects the ledger: the job of a tick that was recorded as fired could not be created in its segment.
-- KEYS: ledger
-- ARGV: tick, what was recorded
-- Returns: 1 corrected, 0 it says something else by now
-- Idempotent: by what was recorded
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: refuse
local removed = redis.call('ZREM', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
if removed == 1 then redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1] .. ' ' .. refused_text(ARGV[2])) end
return removed
