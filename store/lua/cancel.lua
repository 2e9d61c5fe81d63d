-- cancel ends a job that has not started, or marks one that runs; the worker that runs it is told.
-- KEYS: record, due, wait, grant, cancels, awaited, history of cancelled, stream, taken, claims
-- ARGV: id, reason, control channel, inbox channel prefix, history TTL, record TTL, ref, waiter prefix, waiter suffix,
--       name, queue, claims
-- Returns: state before the call and whether a mutex is to be granted:
--       '' no such job, s f c x final already, q running and now marked, d w n cancelled (due, waiting, not yet read)
-- Idempotent: a final job stays as it is; a mark is set once
-- Memory: works when Redis is out of memory (the first write removes)
-- include: base books mutex claims finish
local record, due, wait, grant, cancels, awaited, history, stream, taken =
  key(), key(), key(), key(), key(), key(), key(), key(), key()
local id, reason, channel, inbox, history_ttl, ttl = arg(), arg(), arg(), arg(), arg(), arg()
local ref, before, after, name, queue = arg(), arg(), arg(), arg(), arg()
local c = claims()
local job = call('HMGET', record, 'p', 'c', 's', 'a')
local place = job[1]
if not place or place == 'v' then return {'', 0} end
local state, rest = place:sub(1, 1), place:sub(2)
if state == 's' or state == 'f' or state == 'c' or state == 'x' then return {state, 0} end

if state:find('%d') then
  local pending = try('XPENDING', stream, 'w', place, place, 1)
  if pending[1] then
    if not job[2] then
      try('ZREM', due, '')
      call('HSET', record, 'c', reason)
      try('HSET', cancels, id, now_text)
    end
    call('PUBLISH', channel, 'c ' .. place .. ' ' .. id)
    return {'q', 0}
  end
  take_out(stream, place)
  state = 'n'
elseif state == 'w' then
  try('ZREM', wait, before .. rest .. after)
else
  try('ZREM', due, ref)
  state = 'd'
end
local attempts, submitted, missing = first_attempt(place, job[4], job[3])
call('HSET', record, 'c', reason, unpack(missing))
local freed = finish({record = record, id = id, name = name, queue = queue, attempt = attempts or '0', err = reason,
  state = 'c', history = history, history_ttl = history_ttl, ttl = ttl, inbox = inbox, awaited = awaited,
  submitted = submitted, claims = c, wait = wait, grant = grant})
keep_histories()
keep_books(taken)
return {state, freed and 1 or 0}
