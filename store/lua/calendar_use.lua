-- calendar_use notes that a schedule uses a calendar, before it does. So a calendar that is dropped has no users, and one
-- that was dropped gets none.
-- KEYS: calendars, users of the calendar
-- ARGV: name of the calendar, name of the schedule
-- Returns: 1 noted, 0 there is no such calendar
-- Idempotent: by name
-- Memory: refused when Redis is out of memory
if redis.call('HSTRLEN', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('SADD', KEYS[2], ARGV[2])
return 1
