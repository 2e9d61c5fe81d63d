-- heartbeat extends an instance's lease and tells it what it may have missed.
-- KEYS: workers, instances, cancels, paused, own, streams, streams of its own queue
-- ARGV: instance, lease in ms, jobs running now, the last census it heard or '-' when it does not ask what concerns all
--       segments, number of streams, number of streams of its own queue, then for each of both the entries the instance knows
-- Returns: now, 1 or 0 = the instance was declared dead, IDs of cancelled jobs, paused queues,
--       live instances if they are not those of the last census, indexes of streams on which more is pending than the
--       instance knows, census
-- Idempotent: it only extends
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: base census
local workers, instances, cancels, paused, own = key(), key(), key(), key(), key()
local instance, lease, running, heard = arg(), arg(), arg(), arg()
local streams = keylist()
local lanes = keylist()
call('ZREM', workers, '')
local known_until = call('ZSCORE', workers, instance)
local alive = known_until and tonumber(known_until) > 0 and 1 or 0 -- below 0: its work is being reclaimed
local missed = {}
if alive == 1 then
  call('ZADD', workers, 'XX', int(now + lease), instance)
  if tonumber(known_until) < now then added(instances) end
  try('HSET', instances, instance .. ' running', running)
  if lanes[1] then
    local mark = instance .. ':'
    local jobs = try('ZRANGEBYLEX', own, '[' .. mark, '(' .. instance .. ';', 'LIMIT', 0, 2)
    if jobs[1] ~= mark then try('ZADD', own, 0, mark) end -- somebody has deleted it
    if jobs[1] ~= mark or jobs[2] then -- otherwise nothing is in there
      for _, lane in ipairs(lanes) do streams[#streams + 1] = lane end
    end
  end
  for i, stream in ipairs(streams) do
    local known = tonumber(arg())
    local pending = try('XPENDING', stream, 'w', '-', '+', known + 1, instance)
    local foreign = pending.err and pending.err:find('WRONGTYPE', 1, true)
    if not foreign and (pending.err or #pending > known) then missed[#missed + 1] = i end
  end
end
-- What is foreign there says nothing, and does not end a lease.
local function ours(reply) return reply.err and {} or reply end

-- Who is alive is many names for everybody to hear, and seldom news.
local census, live = '', {}
if heard ~= '-' then
  local last = try('HGET', instances, ' added')
  local lapsed = call('ZRANGEBYSCORE', workers, '-inf', '(' .. now_text, 'LIMIT', 0, 1000)
  if type(last) == 'string' then census = last .. ' ' .. call('ZCARD', workers) - #lapsed end
  if census == '' or census ~= heard then live = call('ZRANGEBYSCORE', workers, now_text, '+inf', 'LIMIT', 0, 1000) end
end

return {now_text, alive, ours(try('HKEYS', cancels)), heard == '-' and {} or ours(try('SMEMBERS', paused)), live, missed, census}
