-- fetch takes up to n entries: a share for the low priorities first, so that nothing starves, then by priority.
-- KEYS: streams in order of priority
-- ARGV: instance, n, entries kept for the share, how many streams, then the order in which the share is served as indexes
-- Returns: now, then pairs of a stream's index and its entries; foreign keys are passed over
-- Idempotent: no; entries of a lost reply are pending for this instance, which takes them up from there
-- Memory: works when Redis is out of memory
-- include: base
local instance, n, share = arg(), tonumber(arg()), tonumber(arg())
local streams = keylist()
local reply = {int(now)}
local failure

local function take_from(index, count)
  local got = try('XREADGROUP', 'GROUP', 'w', instance, 'COUNT', count, 'STREAMS', streams[index], '>')
  if got and got.err and not got.err:find('WRONGTYPE', 1, true) then failure = got.err end
  if not got or not got[1] then return 0 end
  reply[#reply + 1] = index
  reply[#reply + 1] = got[1][2]
  return #got[1][2]
end

for _ = 1, #streams do
  local index = tonumber(arg())
  if share <= 0 then break end
  local taken = take_from(index, share)
  share = share - taken
  n = n - taken
end
for index = 1, #streams do
  if n <= 0 then break end
  n = n - take_from(index, n)
end
if failure and #reply == 1 then return redis.error_reply(failure) end
return reply
