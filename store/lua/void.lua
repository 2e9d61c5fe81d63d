-- void decides a race for a foreign key: when the holder's job was never stored, it never will be.
-- KEYS: record of the holder's job
-- ARGV: time to live of the mark in ms
-- Returns: 'v' there is no job and none will come; otherwise the first letter of the job's place
-- Idempotent: a mark stays a mark
-- Memory: refused when Redis is out of memory
local place = redis.call('HGET', KEYS[1], 'p')
if place then return place:sub(1, 1) end
redis.call('HSET', KEYS[1], 'p', 'v')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 'v'
