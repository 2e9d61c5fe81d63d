-- settle ends attempts: the job becomes final, is planned again, or goes back to the workers.
-- KEYS: due, wait, grant, cancels, four histories (succeeded, failed, cancelled, expired), events, taken, streams,
--       then for each job: record, claims
-- ARGV: control channel, segment, inbox channel prefix, instance, four history TTLs, number of streams, number of jobs,
--       then for each job: id, token, index of its stream, outcome, elapsed ms, delay or expiry in ms,
--       record TTL in ms or '' for the history's, error, result, ref, name, queue, attempt, claims
--       outcomes: s succeeded, f failed, c cancelled, x expired (delay = expiry), r retry, z snooze, b back to
--       the workers, u no handler here (planned again after delay, uncharged)
-- Returns: one answer for each job: 1 settled, 2 settled before by this same call, 3 cancelled instead,
--       0 fenced: the token is not the current one, -1 not yet expired, -2 the record is damaged or gone,
--       -3 failed instead: a key it needs is not ours, 4 settled, though somebody else had taken the entry away;
--       then names of mutexes to grant
-- Idempotent: by XACK of the token, or by the record that names it; the attempt log tells a repetition from a stale attempt
-- Memory: works when Redis is out of memory (the first write is XACK)
-- include: base books mutex dispatch plan claims finish
local due, wait, grant, cancels = key(), key(), key(), key()
local history = {s = key(), f = key(), c = key(), x = key()}
local events, taken = key(), key()
local channel, segment, inbox, instance = arg(), arg(), arg(), arg()
local ttl = {s = arg(), f = arg(), c = arg(), x = arg()}
local streams = keylist()
local kept_attempts = 20
local freed = {}

-- same tells whether the log of an attempt is that of the outcome asked for, which can be recorded as another one:
-- c as b when nobody cancelled the job, all but s and x as f when a key they need is not ours.
local function same(log, was, asked)
  if was == asked or asked == 'c' and was == 'b' then return true end
  return was == 'f' and asked ~= 's' and asked ~= 'x' and log:find('^%S+ f %S+ %S+ %S+ quarantined: ')
end

local function settle()
  local id, token, stream = arg(), arg(), streams[tonumber(arg())]
  local outcome, elapsed, delay, record_ttl = arg(), arg(), tonumber(arg()), arg()
  local err, result, ref, name, queue, attempt = arg(), arg(), arg(), arg(), arg(), arg()
  local record = key()
  local c = claims()

  if outcome == 'x' and delay > now then return -1 end
  local asked = outcome
  local job = try('HMGET', record, 'p', 'c', 'aw', 's', 'f', 'l')
  local cancelled = not job.err and job[2]
  if outcome == 'c' and not cancelled then outcome = 'b' end -- nobody asked for it
  local problem, spec
  if outcome == 'r' or outcome == 'z' or outcome == 'u' then
    local planned_for = try('ZCARD', due)
    problem = type(planned_for) == 'table' and planned_for.err
  elseif outcome == 'b' then
    spec = spec_of(record)
    local length = try('XLEN', stream)
    problem = type(length) == 'table' and length.err or not spec and 'the record has no job'
      or c and c.mutex and unsound(c.mutex, wait, grant)
  end

  local acked = try('XACK', stream, 'w', token)
  if type(acked) == 'table' and not acked.err:find('WRONGTYPE', 1, true) then
    call('XACK', stream, 'w', token) -- ends the script: the server refuses writes for now, which fences nobody
  end
  -- While the record names the entry, no other attempt was dispatched: then somebody else took the entry away.
  local bereft = acked ~= 1 and not job.err and job[1] == 'q' .. token
  if acked ~= 1 and not bereft then
    local log = not job.err and call('HGET', record, 'x' .. attempt)
    local was = log and log:sub(1, #token + 1) == token .. ' ' and log:sub(#token + 2, #token + 2)
    if was and same(log, was, asked) then return 2 end
    return 0
  end
  take_out(stream, token)
  if job.err or not job[1] then
    try('HDEL', cancels, id)
    if let_go(c, id, 0, wait, grant) then freed[#freed + 1] = c.name end
    try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'quarantined', 'i', id, 'n', name, 'q', queue, 'a', attempt,
      'e', job.err or 'the record is gone')
    call('PEXPIRE', events, ttl.f)
    return -2
  end
  if job[1] ~= 'q' .. token then return 0 end

  local answer = bereft and 4 or 1
  if problem then
    outcome, err, answer = 'f', 'quarantined: ' .. problem .. '; ' .. err, -3
    call('HSET', record, 'e', err)
  end
  local logged = outcome
  if cancelled then
    try('HDEL', cancels, id)
    if outcome ~= 's' and outcome ~= 'x' then
      outcome = 'c'
      answer = 3
    end
  end
  call('HSET', record, 'x' .. attempt,
    token .. ' ' .. logged .. ' ' .. elapsed .. ' ' .. int(now) .. ' ' .. instance .. ' ' .. err)
  if tonumber(attempt) > kept_attempts then call('HDEL', record, 'x' .. int(attempt - kept_attempts)) end
  if result ~= '' then call('HSET', record, 'r', result) end
  if logged == 'f' or logged == 'r' then call('HSET', record, 'f', int((tonumber(job[5]) or 0) + 1)) end

  local state = history[outcome]
  if state then
    if finish({record = record, id = id, name = name, queue = queue, attempt = attempt, err = err,
      state = outcome, history = state, history_ttl = ttl[outcome], ttl = record_ttl ~= '' and record_ttl or ttl[outcome], inbox = inbox,
      awaiting = job[3], submitted = job[4], claims = c, wait = wait, grant = grant}) then
      freed[#freed + 1] = c.name
    end
    return answer
  end

  if outcome == 'b' then
    local mutex_token = c and c.mutex and take(c.mutex, wait, c.name, id, true)
    if c and c.mutex and not mutex_token then
      enqueue(wait, grant, c.mutex, record, c.name, route_of(ref, id))
    else
      dispatch(stream, record, id, spec, attempt + 1, tonumber(job[5]) or 0, tonumber(job[6]) or 0, mutex_token)
    end
    return answer
  end
  if outcome == 'r' then
    call('HSET', record, 'p', 'r')
    try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'retrying', 'i', id, 'n', name, 'q', queue, 'a', attempt, 'e', err)
    call('PEXPIRE', events, ttl.f)
  else
    call('HSET', record, 'p', 'd')
  end
  plan(due, ref, now + delay)
  if c and c.mutex and free(c.mutex, wait, grant, c.name, id) then freed[#freed + 1] = c.name end
  return answer
end

local answers = {}
for i = 1, tonumber(arg()) do answers[i] = settle() end
wake(due, channel, segment)
keep_histories()
keep_books(taken)
return {answers, freed}
