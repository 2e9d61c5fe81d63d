-- schedule_put stores a schedule's definition. An equal one changes nothing, so every instance may put it at start,
-- unless the stored one was parked. One that says the same in other bytes is replaced, and its plan goes on.
-- KEYS: schedule, plan
-- ARGV: name, definition, first tick in ms, control channel, segment, a definition that says the same or ''
-- Returns: generation, 1 when it changed
-- Idempotent: by the definition
-- Memory: refused when Redis is out of memory
local known = redis.call('HMGET', KEYS[1], 'd', 'g', 'e')
if known[1] == ARGV[2] and not known[3] then return {tonumber(known[2]), 0} end
if ARGV[6] ~= '' and known[1] == ARGV[6] and not known[3] then
  redis.call('HSET', KEYS[1], 'd', ARGV[2])
  return {tonumber(known[2]), 0}
end
local planned = redis.pcall('ZCARD', KEYS[2])
if type(planned) == 'table' then return redis.error_reply(planned.err) end
local generation = (tonumber(known[2]) or 0) + 1
redis.call('HSET', KEYS[1], 'd', ARGV[2], 'g', generation, 'n', ARGV[3])
redis.call('HDEL', KEYS[1], 'e')
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('PUBLISH', ARGV[4], 's ' .. ARGV[5] .. ' ' .. ARGV[3])
return {generation, 1}
