-- leave removes an instance and its consumers where nothing is pending. Where something is, the lease is ended
-- so that others reclaim it at once. The streams of its own queue go with it, when no job is left for them.
-- KEYS: workers, instances, own, taken, streams, streams of its own queue
-- ARGV: instance, 1 when others take it for lost, number of streams, number of streams of its own queue in this segment
-- Returns: 1 gone, 0 entries are still pending, or jobs of its own queue live, -1 it was taken for lost and is alive
-- Idempotent: by instance
-- Memory: works when Redis is out of memory
-- include: base
local workers, instances, own, taken = key(), key(), key(), key()
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
local lanes = keylist()
if lanes[1] and try('ZRANGEBYLEX', own, '(' .. instance .. ':', '(' .. instance .. ';', 'LIMIT', 0, 1)[1] then pending = true end
for _, lane in ipairs(lanes) do
  local length = try('XLEN', lane)
  if type(length) == 'number' and length > 0 then pending = true end
end
if pending then
  call('ZREM', workers, '') -- ZADD alone is refused when Redis is out of memory
  call('ZADD', workers, 'XX', 0, instance)
  return 0
end
call('ZREM', workers, instance)
for _, lane in ipairs(lanes) do
  if type(try('XLEN', lane)) == 'number' then call('DEL', lane) end
  try('HDEL', taken, lane)
end
if lanes[1] then try('ZREM', own, instance .. ':') end
try('HDEL', instances, instance, instance .. ' running')
if call('EXISTS', workers) == 0 then try('HDEL', instances, ' added') end
return 1
