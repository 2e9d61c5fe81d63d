-- fire creates the job of one tick and moves the schedule to its next tick, also when the job cannot be created.
-- KEYS: schedule, plan, due, wait, grant, tend, relay, streams, then for a job of this segment: record, claims
-- ARGV: control channel, segment, name, generation, tick in ms, next tick in ms or '' for none,
--       '' or the spec to relay to another segment with its ID, number of streams, then the job as in lib/accept
-- Returns: '-' when generation or tick are not the current ones or it is too early; otherwise the job's answer as in
--       lib/accept, 'r' when it was relayed
-- Idempotent: by generation and tick; the job's ID is derived from them
-- Memory: refused when Redis is out of memory
-- include: base mutex dispatch plan claims accept
local schedule, ticks, due, wait, grant, tend, relay = key(), key(), key(), key(), key(), key(), key()
local channel, segment, name, generation, tick, following = arg(), arg(), arg(), arg(), arg(), arg()
local foreign = arg()
local streams = keylist()
local current = call('HMGET', schedule, 'g', 'n')
if current[1] ~= generation or current[2] ~= tick or tonumber(tick) > now then return '-' end
local answer = 'r'
if foreign == '' then
  answer = accept(due, wait, grant, tend, streams)
else
  call('HSET', relay, arg(), foreign)
end
if following == '' then
  call('ZREM', ticks, name)
  call('HDEL', schedule, 'n')
else
  call('ZADD', ticks, following, name)
  call('HSET', schedule, 'n', following)
end
call('HSET', schedule, 'l', tick)
wake(due, channel, segment)
return answer
