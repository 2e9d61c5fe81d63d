-- reclaim takes the work of a lapsed instance from it: each pending entry is dispatched anew under a new token, or
-- the job is final when it was cancelled or has lost too many workers. With nobody as the instance it does so for
-- jobs whose entries nobody will get, because somebody else had a hand in the stream.
-- KEYS: workers, due, wait, grant, cancels, awaited, histories (failed, cancelled), events, taken, streams, then for each job: record,
--       claims
-- ARGV: instance or '', limit of losses, inbox channel prefix, history TTLs (failed, cancelled), number of streams,
--       number of jobs, then for each job: id, token, index of its stream, name, queue, record TTL in ms or '', ref,
--       why it ends when its instance, whose own queue it is in, has left, claims
-- Returns: -1 the instance is alive; otherwise one answer for each job (1 dispatched, 2 cancelled, 3 failed, 0 passed
--       over, -2 the record is damaged or gone), then names of mutexes to grant
-- Idempotent: by XACK of the token, or by the record, which names another one then
-- Memory: works when Redis is out of memory (the first write is XACK)
-- include: base books mutex spec dispatch claims finish
local workers, due, wait, grant, cancels, awaited = key(), key(), key(), key(), key(), key()
local history = {f = key(), c = key()}
local events, taken = key(), key()
local instance, limit, inbox = arg(), tonumber(arg()), arg()
local ttl = {f = arg(), c = arg()}
local streams = keylist()
local nobody = instance == ''
local lease = not nobody and call('ZSCORE', workers, instance)
if lease and tonumber(lease) > now then return -1 end
-- From here on the instance is dead, and hears so from its next heartbeat. The first write frees no memory but needs none.
if not nobody then call('ZREM', workers, '') end
if lease and tonumber(lease) > 0 then call('ZADD', workers, 'XX', int(-lease), instance) end
local freed = {}

-- lost tells that nobody will get an entry: it is not pending, and it is gone or the group has passed it by.
local function lost(stream, token)
  if try('XPENDING', stream, 'w', token, token, 1)[1] then return false end
  if not try('XRANGE', stream, token, token)[1] then return true end
  for _, group in ipairs(try('XINFO', 'GROUPS', stream)) do
    local at = {}
    for i = 1, #group - 1, 2 do at[group[i]] = group[i + 1] end
    local first = at.name == 'w' and try('XRANGE', stream, token, at['last-delivered-id'], 'COUNT', 1)[1]
    if first then return first[1] == token end
  end
  return false
end

local function reclaim()
  local id, token, stream, name, queue = arg(), arg(), streams[tonumber(arg())], arg(), arg()
  local record_ttl, ref, left = arg(), arg(), arg()
  local record = key()
  local c = claims()
  local job = try('HMGET', record, 'p', 'a', 'f', 'l', 'c', 's', 'j1')
  local spec = not job.err and spec_of(record, job[7])
  if nobody then
    if job.err or job[1] ~= token or not lost(stream, token) then return 0 end
    try('ZREM', due, '') -- the first write, which needs no memory
  elseif try('XACK', stream, 'w', token) ~= 1 then
    return 0
  end
  take_out(stream, token)
  if job.err or not job[1] then
    try('HDEL', cancels, id)
    give_notice(awaited, id, inbox)
    if let_go(c, id, 0, wait, grant) then freed[#freed + 1] = c.name end
    try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'quarantined', 'i', id, 'n', name, 'q', queue, 'a', '0',
      'e', job.err or 'the record is gone')
    call('PEXPIRE', events, ttl.f)
    return -2
  end
  if job[1] ~= token then return 0 end

  -- A frozen instance may still have a read blocked in Redis, which takes entries after the lease has lapsed. What
  -- it got then was never in its hands.
  local charged = lease and tonumber(token:match('^%d+')) <= math.abs(tonumber(lease))
  local attempts, submitted, missing = first_attempt(token, job[2], job[6])
  local attempt, losses = tonumber(attempts) or 0, (tonumber(job[4]) or 0) + (charged and 1 or 0)
  local owner_lease = c and c.own and (tonumber(try('ZSCORE', workers, c.instance) or 0) or 0)
  local gone = owner_lease and owner_lease <= 0
  local ended, why = 'l', 'the worker was lost'
  if nobody then
    ended, why = 'b', 'somebody else took its entry away'
  elseif gone and not charged then
    ended, why = 'b', left
  end
  call('HSET', record, 'l', losses, 'x' .. attempt,
    token .. ' ' .. ended .. ' -1 ' .. now_text .. ' ' .. instance .. ' ' .. why, unpack(missing))
  local problem = not spec and 'the record has no job' or c and c.mutex and unsound(c.mutex, wait, grant)
  local length = try('XLEN', stream)
  if type(length) == 'table' then problem = length.err end
  local state, err
  if job[5] then
    state, err = 'c', job[5]
    try('HDEL', cancels, id)
  elseif gone then
    state, err = 'c', left
    call('HSET', record, 'c', left)
  elseif charged and losses >= limit then
    state, err = 'f', 'the job lost its worker ' .. losses .. ' times'
  elseif problem then
    state, err = 'f', 'quarantined: ' .. problem
    call('HSET', record, 'e', err)
  end
  if state then
    if finish({record = record, id = id, name = name, queue = queue, attempt = attempt, err = err, state = state,
      history = history[state], history_ttl = ttl[state], ttl = record_ttl ~= '' and record_ttl or ttl[state],
      inbox = inbox, awaited = awaited, submitted = submitted, claims = c, wait = wait, grant = grant}) then
      freed[#freed + 1] = c.name
    end
    return state == 'c' and 2 or 3
  end
  local mutex_token = c and c.mutex and take(c.mutex, wait, c.name, id, true)
  if c and c.mutex and not mutex_token then
    enqueue(wait, grant, c.mutex, record, c.name, route_of(ref, id))
  else
    dispatch(stream, record, id, spec, attempt + 1, tonumber(job[3]) or 0, losses, mutex_token)
  end
  return 1
end

local answers = {}
for i = 1, tonumber(arg()) do answers[i] = reclaim() end
keep_histories()
keep_books(taken)
return {answers, freed}
