-- join registers an instance in a segment and creates the consumer groups it reads. Foreign keys are left alone.
-- KEYS: workers, instances, streams
-- ARGV: instance, lease in ms, description, number of streams
-- Returns: now
-- Idempotent: by instance
-- Memory: refused when Redis is out of memory
-- include: base
local workers, instances = key(), key()
local instance, lease, description = arg(), arg(), arg()
for _, stream in ipairs(keylist()) do
  local made = try('XGROUP', 'CREATE', stream, 'w', '0', 'MKSTREAM')
  local harmless = made.err and (made.err:find('BUSYGROUP', 1, true) or made.err:find('WRONGTYPE', 1, true))
  if made.err and not harmless then return redis.error_reply(made.err) end
end
call('HSET', instances, instance, description)
call('ZADD', workers, int(now + lease), instance)
return int(now)
