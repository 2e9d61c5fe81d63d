-- fetch takes up to n entries: a share for the low priorities first, so that nothing starves, then by priority.
-- KEYS: streams in order of priority
-- ARGV: instance, n, entries kept for the share, how many streams, then the order in which the share is served as indexes
-- Returns: for each stream that had some: its index, the number of entries, and in one string for each its ID, the length
--       of what it holds, and that; foreign keys are passed over
-- Idempotent: no; entries of a lost reply are pending for this instance, which takes them up from there
-- Memory: works when Redis is out of memory
-- include: base
local instance, n, share = arg(), tonumber(arg()), tonumber(arg())
local streams = keylist()
local reply = {}
local failure
local lengths = {} -- as text, for numbers are costly to print

local function take_from(index, count)
  local got = try('XREADGROUP', 'GROUP', 'w', instance, 'COUNT', count, 'STREAMS', streams[index], '>')
  if got and got.err and not got.err:find('WRONGTYPE', 1, true) then failure = got.err end
  if not got or not got[1] then return 0 end
  local entries, size, parts = got[1][2], #reply, {}
  for i, entry in ipairs(entries) do
    local data = entry[2][1] == 'e' and entry[2][2] or ''
    local length = lengths[#data]
    if not length then
      length = ' ' .. #data .. ' '
      lengths[#data] = length
    end
    parts[3 * i - 2], parts[3 * i - 1], parts[3 * i] = entry[1], length, data
  end
  reply[size + 1], reply[size + 2], reply[size + 3] = index, #entries, table.concat(parts)
  return #entries
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
if failure and #reply == 0 then return redis.error_reply(failure) end
return reply
