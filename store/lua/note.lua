-- note stores a running attempt's progress or checkpoint.
-- KEYS: record
-- ARGV: token, field (g progress, k checkpoint), value
-- Returns: 1 stored, 0 fenced: the token is not the current one
-- Idempotent: the same value under the same token
-- Memory: refused when Redis is out of memory
if redis.call('HGET', KEYS[1], 'p') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
