-- join registers an instance in a segment and creates the consumer groups it reads. Foreign keys are left alone. A group
-- that somebody destroyed while instances run begins at the end of its stream, for entries before that may be running:
-- an audit dispatches them anew, under new tokens. That a group is made once more is noted in the books, for jobs may
-- have lost their entries.
-- KEYS: workers, instances, taken, own, streams
-- ARGV: instance, lease in ms, description, 1 when it reads its own queue here, number of streams
-- Returns: now, 1 or 0 = it was not registered here, or was declared dead
-- Idempotent: by instance
-- Memory: refused when Redis is out of memory
-- include: base census
local workers, instances, taken, own = key(), key(), key(), key()
local instance, lease, description, at_home = arg(), arg(), arg(), arg() == '1'
local others = call('EXISTS', workers) == 1
for _, stream in ipairs(keylist()) do
  local start = others and type(try('HGET', taken, stream)) == 'string' and '$' or '0'
  local made = try('XGROUP', 'CREATE', stream, 'w', start, 'MKSTREAM')
  local harmless = made.err and (made.err:find('BUSYGROUP', 1, true) or made.err:find('WRONGTYPE', 1, true))
  if made.err and not harmless then return redis.error_reply(made.err) end
  if not made.err and try('HSETNX', taken, stream, 0) == 0 then try('HINCRBY', taken, stream, 1) end
end
if at_home then try('ZADD', own, 0, instance .. ':') end
try('HSET', instances, instance, description)
local lease_before = call('ZSCORE', workers, instance)
call('ZADD', workers, int(now + lease), instance)
if not lease_before or tonumber(lease_before) < now then added(instances) end
return {int(now), lease_before and tonumber(lease_before) > 0 and 1 or 0}
