-- heartbeat extends an instance's lease and tells it what it may have missed.
-- KEYS: workers, instances, cancels, paused, own, streams
-- ARGV: instance, lease in ms, jobs running now, 1 when it reads its own queue here, number of streams, then for each stream the entries the instance knows
-- Returns: now, 1 or 0 = the instance was declared dead, IDs of cancelled jobs, paused queues, live instances,
--       indexes of streams on which more is pending than the instance knows
-- Idempotent: it only extends
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: base
local workers, instances, cancels, paused, own = key(), key(), key(), key(), key()
local instance, lease, running, at_home = arg(), arg(), arg(), arg() == '1'
local streams = keylist()
call('ZREM', workers, '')
local known_until = call('ZSCORE', workers, instance)
local alive = known_until and tonumber(known_until) > 0 and 1 or 0 -- below 0: its work is being reclaimed
local missed = {}
if alive == 1 then
  call('ZADD', workers, 'XX', int(now + lease), instance)
  try('HSET', instances, instance .. ' running', running)
  if at_home then try('ZADD', own, 0, instance .. ':') end -- somebody may have deleted it
  for i, stream in ipairs(streams) do
    local known = tonumber(arg())
    local pending = try('XPENDING', stream, 'w', '-', '+', known + 1, instance)
    local foreign = pending.err and pending.err:find('WRONGTYPE', 1, true)
    if not foreign and (pending.err or #pending > known) then missed[#missed + 1] = i end
  end
end
-- What is foreign there says nothing, and does not end a lease.
local function ours(reply) return reply.err and {} or reply end

return {
  int(now), alive, ours(try('HKEYS', cancels)), ours(try('SMEMBERS', paused)),
  call('ZRANGEBYSCORE', workers, int(now), '+inf', 'LIMIT', 0, 1000), missed,
}
