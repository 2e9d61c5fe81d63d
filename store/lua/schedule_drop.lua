-- schedule_drop deletes a schedule.
-- KEYS: schedule, plan
-- ARGV: name
-- Returns: 1 deleted, 0 there was none
-- Idempotent: by name
-- Memory: works when Redis is out of memory
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
