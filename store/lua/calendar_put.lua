-- calendar_put stores a calendar, if the stored one is still as it was read.
-- KEYS: calendars
-- ARGV: name, data, data as it was read or '' when there was none
-- Returns: 1 stored, 0 it is another one by now
-- Idempotent: by the data
-- Memory: refused when Redis is out of memory
local current = redis.call('HGET', KEYS[1], ARGV[1])
if current == ARGV[2] then return 1 end
if (current or '') ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
