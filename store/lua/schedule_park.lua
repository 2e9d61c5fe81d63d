-- schedule_park takes a schedule that cannot be read out of the plan; its definition stays for inspection.
-- KEYS: schedule, plan
-- ARGV: name, reason, the definition that cannot be read, or '' when there is none or the key is foreign
-- Returns: 1 parked, 0 it was not planned, or is another definition by now
-- Idempotent: by name and definition
-- Memory: works when Redis is out of memory (the first write is ZREM)
local definition = redis.pcall('HGET', KEYS[1], 'd')
local ours = type(definition) == 'string'
if (ours and definition or '') ~= ARGV[3] then return 0 end
local parked = redis.call('ZREM', KEYS[2], ARGV[1])
if ours then
  redis.call('HSET', KEYS[1], 'e', ARGV[2])
  redis.call('HDEL', KEYS[1], 'k')
end
return parked
