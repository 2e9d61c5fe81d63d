-- revive gives a final job that did not succeed a new life: its failures are forgotten and it is due now.
-- KEYS: record, due, tend, history of its state, events, claims
-- ARGV: id, letter of its state, ref, control channel, segment, events TTL, name, queue, claims, claims to tend
-- Returns: 'ok'; '' no such job; 'live' or 'succeeded' when there is nothing to retry; 'u' .. id when another job
--       holds its unique key
-- Idempotent: a job that lives is left alone
-- Memory: refused when Redis is out of memory
-- include: base plan claims
local record, due, tend, history, events = key(), key(), key(), key(), key()
local id, expected, ref, channel, segment, ttl, name, queue = arg(), arg(), arg(), arg(), arg(), arg(), arg(), arg()
local c = claims()
local foreign = {}
for i = 1, tonumber(arg()) do foreign[i] = arg() end
local place = call('HGET', record, 'p')
if not place or place == 'v' then return '' end
local state = place:sub(1, 1)
if state == 's' then return 'succeeded' end
if state ~= expected then return 'live' end
if c and c.unique then
  local holder = call('GET', c.unique)
  if holder and holder ~= id then return 'u' .. holder end
end
local planned_for = try('ZCARD', due)
if type(planned_for) == 'table' then return redis.error_reply(planned_for.err) end
for _, tag in ipairs(c and c.tags or {}) do
  local probe = try('SCARD', tag)
  if type(probe) == 'table' then return redis.error_reply(probe.err) end
end
local probe = c and c.own and try('ZCARD', c.own)
if type(probe) == 'table' then return redis.error_reply(probe.err) end
call('HSET', record, 'p', 'd')
for _, claim in ipairs(foreign) do call('ZADD', tend, int(now + 3600000), claim) end
call('HDEL', record, 'f', 'l', 'c', 'e', 'r')
call('PERSIST', record)
try('XDEL', history, place:sub(2))
if c then
  if c.unique then call('SET', c.unique, id) end
  for _, tag in ipairs(c.tags) do call('SADD', tag, id) end
  if c.own then call('ZADD', c.own, 0, c.instance .. ':' .. id) end
end
plan(due, ref, now)
try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'revived', 'i', id, 'n', name, 'q', queue, 'a', '0', 'e', '')
call('PEXPIRE', events, ttl)
wake(due, channel, segment)
return 'ok'
