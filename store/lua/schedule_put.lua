-- schedule_put stores a schedule's definition. An equal one changes nothing, so every instance may put it at start.
-- KEYS: schedule, plan
-- ARGV: name, definition, first tick in ms, control channel, segment
-- Returns: generation, 1 when it changed
-- Idempotent: by the definition
-- Memory: refused when Redis is out of memory
local known = redis.call('HMGET', KEYS[1], 'd', 'g')
if known[1] == ARGV[2] then return {tonumber(known[2]), 0} end
local generation = (tonumber(known[2]) or 0) + 1
redis.call('HSET', KEYS[1], 'd', ARGV[2], 'g', generation, 'n', ARGV[3])
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('PUBLISH', ARGV[4], 's ' .. ARGV[5] .. ' ' .. ARGV[3])
return {generation, 1}
