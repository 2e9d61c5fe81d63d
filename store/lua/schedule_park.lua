-- schedule_park takes a schedule that cannot be read out of the plan; its definition stays for inspection.
-- KEYS: schedule, plan
-- ARGV: name, reason
-- Returns: 1 parked, 0 it was not planned
-- Idempotent: by name
-- Memory: works when Redis is out of memory (the first write is ZREM)
local parked = redis.call('ZREM', KEYS[2], ARGV[1])
redis.pcall('HSET', KEYS[1], 'e', ARGV[2])
return parked
