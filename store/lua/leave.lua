-- leave removes an instance and its consumers where nothing is pending. Where something is, the lease is ended
-- so that others reclaim it at once.
-- KEYS: workers, instances, streams
-- ARGV: instance, 1 when others take it for lost, number of streams
-- Returns: 1 gone, 0 entries are still pending, -1 it was taken for lost and is alive
-- Idempotent: by instance
-- Memory: works when Redis is out of memory
-- include: base
local workers, instances = key(), key()
local instance, lost = arg(), arg() == '1'
local lease = call('ZSCORE', workers, instance)
if lost and lease and tonumber(lease) > now then return -1 end
local pending = false
for _, stream in ipairs(keylist()) do
  local first = try('XPENDING', stream, 'w', '-', '+', 1, instance)
  if first[1] then
    pending = true
  elseif not first.err then
    call('XGROUP', 'DELCONSUMER', stream, 'w', instance)
  end
end
if pending then
  call('ZREM', workers, '') -- ZADD alone is refused when Redis is out of memory
  call('ZADD', workers, 'XX', 0, instance)
  return 0
end
call('ZREM', workers, instance)
try('HDEL', instances, instance, instance .. ' running')
return 1
