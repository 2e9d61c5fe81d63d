-- calendar_drop deletes a calendar that is still as it was read and has no users, but for those that were found not to use
-- it any more.
-- KEYS: calendars, users of the calendar
-- ARGV: name, data as it was read, names that do not use it any more
-- Returns: 1 deleted, 0 it is another one by now or has other users, -1 there is none
-- Idempotent: by the data
-- Memory: works when Redis is out of memory (the first write is HDEL)
local current = redis.call('HGET', KEYS[1], ARGV[1])
if not current then return -1 end
if current ~= ARGV[2] then return 0 end
local unused = {}
for i = 3, #ARGV do unused[ARGV[i]] = true end
for _, user in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  if not unused[user] then return 0 end
end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return 1
