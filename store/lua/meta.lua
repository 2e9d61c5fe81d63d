-- meta fixes the number of segments of a namespace at its first start.
-- KEYS: meta
-- ARGV: number of segments, format
-- Returns: the number of segments and the format in force
-- Idempotent: the first call wins
-- Memory: refused when Redis is out of memory, unless the namespace was started before
local known = redis.call('HMGET', KEYS[1], 'segments', 'format')
if known[1] and known[2] then return known end
redis.call('HSETNX', KEYS[1], 'segments', ARGV[1])
redis.call('HSETNX', KEYS[1], 'format', ARGV[2])
return redis.call('HMGET', KEYS[1], 'segments', 'format')
