-- quarantine takes what cannot be run out of the way: an entry, a planned or a waiting job whose data is damaged or
-- foreign. A record that is ours becomes failed; a foreign key is left as it is.
-- KEYS: record, due, wait, grant, cancels, awaited, stream, history of failed, events, taken, claims
-- ARGV: id, token or '', ref or '', waiter or '', reason, inbox channel prefix, history TTL, name, queue, claims
-- Returns: 1 taken out, 0 it was not there any more; then whether a mutex is to be granted
-- Idempotent: by the entry, ref or waiter, which leaves its place
-- Memory: works when Redis is out of memory (the first write removes)
-- include: base books mutex claims finish
local record, due, wait, grant, cancels, awaited, stream, history, events, taken =
  key(), key(), key(), key(), key(), key(), key(), key(), key(), key()
local id, token, ref, waiter, reason, inbox, ttl, name, queue =
  arg(), arg(), arg(), arg(), arg(), arg(), arg(), arg(), arg()
local c = claims()
local removed = 0
if token ~= '' then
  local acked = try('XACK', stream, 'w', token)
  local gone = take_out(stream, token)
  if acked == 1 or gone == 1 then removed = 1 end
  -- Only now that it is not pending its job can be dispatched anew, so an audit has to look once more.
  if acked == 1 and gone == 0 then took[stream] = (took[stream] or 0) - 1 end
end
if ref ~= '' and try('ZREM', due, ref) == 1 then removed = removed + 1 end
if waiter ~= '' and try('ZREM', wait, waiter) == 1 then removed = removed + 1 end
local job = id ~= '' and try('HMGET', record, 'p', 'a', 's')
if token ~= '' and job and job[1] == token then removed = 1 end -- also when somebody else took it away
if removed == 0 then return {0, 0} end
local known = job and not job.err and job[1]
-- An entry can be a stray copy of a job that is somewhere else.
local ends = known and (token ~= '' and known == token or token == '' and known:find('^[drw]'))
if ends or not known then try('HDEL', cancels, id) end
if not known then give_notice(awaited, id, inbox) end
keep_books(taken)
local freed = false
if ends then
  local attempts, submitted, missing = first_attempt(known, job[2], job[3])
  call('HSET', record, 'e', reason, unpack(missing))
  freed = finish({record = record, id = id, name = name, queue = queue, attempt = attempts or '0', err = reason,
    state = 'f', history = history, history_ttl = ttl, ttl = ttl, inbox = inbox, awaited = awaited,
    submitted = submitted, claims = c, wait = wait, grant = grant})
  keep_histories()
end
try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'quarantined', 'i', id, 'n', name, 'q', queue, 'a', '0', 'e', reason)
call('PEXPIRE', events, ttl)
return {1, freed and 1 or 0}
