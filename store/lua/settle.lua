-- settle ends attempts: the job becomes final, is planned again, or goes back to the workers.
-- KEYS: due, wait, grant, cancels, awaited, four histories (succeeded, failed, cancelled, expired), events, taken, streams,
--       then for each success: record; then for each other job: record, claims
-- ARGV: control channel, segment, inbox channel prefix, instance, four history TTLs, number of streams,
--       number of groups of successes, then for each group: index of the stream, name, queue, attempt, number of jobs,
--       their IDs, their tokens in ascending order, for each of them what its handler took in ms;
--       number of other jobs, then for each: id, token, index of its stream, outcome, elapsed ms, delay or expiry in ms,
--       record TTL in ms or '' for the history's, error, result, ref, name, queue, attempt, claims
--       outcomes: s succeeded, f failed, c cancelled, x expired (delay = expiry), r retry, z snooze, b back to
--       the workers, u no handler here (planned again after delay, uncharged)
-- Returns: one answer for each job, in the order of ARGV: 1 settled, 2 settled before by this same call, 3 cancelled
--       instead, 0 fenced: the token is not the current one, -1 not yet expired, -2 the record is damaged or gone,
--       -3 failed instead: a key it needs is not ours, 4 settled, though somebody else had taken its entry away, or that of
--       a success settled along with it; then names of mutexes to grant
-- Idempotent: by the record, which names the token of the current attempt; the attempt log tells a repetition from a stale attempt
-- Memory: works when Redis is out of memory (the first write is XACK)
-- include: base books front mutex spec dispatch plan claims finish
local due, wait, grant, cancels, awaited = key(), key(), key(), key(), key()
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

-- acknowledge answers how many entries were pending; nil when the key is no stream. Any other error ends the script: the
-- server refuses writes for now, which fences nobody.
local function acknowledge(stream, ...)
  local acked = try('XACK', stream, 'w', ...)
  if type(acked) ~= 'table' then return acked end
  if not acked.err:find('WRONGTYPE', 1, true) then call('XACK', stream, 'w', ...) end
end

-- lose gives up a job whose record is damaged or gone.
local function lose(id, name, queue, attempt, c, problem)
  try('HDEL', cancels, id)
  give_notice(awaited, id, inbox)
  if let_go(c, id, 0, wait, grant) then freed[#freed + 1] = c.name end
  try('XADD', events, 'MAXLEN', '~', 10000, '*', 't', 'quarantined', 'i', id, 'n', name, 'q', queue, 'a', attempt,
    'e', problem or 'the record is gone')
  call('PEXPIRE', events, ttl.f)
  return -2
end

local function settle(a)
  local id, token, stream, record, attempt, c = a.id, a.token, a.stream, a.record, a.attempt, a.claims
  local outcome, err, name, queue, delay = a.outcome, a.err, a.name, a.queue, a.delay

  if outcome == 'x' and delay > now then return -1 end
  local asked = outcome
  local job = try('HMGET', record, 'p', 'c', 's', 'f', 'l', 'j1', 'a')
  local cancelled = not job.err and job[2]
  if outcome == 'c' and not cancelled then outcome = 'b' end -- nobody asked for it
  local problem, spec
  if outcome == 'r' or outcome == 'z' or outcome == 'u' then
    local planned_for = try('ZCARD', due)
    problem = type(planned_for) == 'table' and planned_for.err
  elseif outcome == 'b' then
    spec = spec_of(record, job[6])
    local length = try('XLEN', stream)
    problem = type(length) == 'table' and length.err or not spec and 'the record has no job'
      or c and c.mutex and unsound(c.mutex, wait, grant)
  end

  local acked = acknowledge(stream, token)
  -- While the record names the entry, no other attempt was dispatched: then somebody else took the entry away.
  local bereft = acked ~= 1 and not job.err and job[1] == token
  if acked ~= 1 and not bereft then
    local log = not job.err and call('HGET', record, 'x' .. attempt)
    local was = log and log:sub(1, #token + 1) == token .. ' ' and log:sub(#token + 2, #token + 2)
    if was and same(log, was, asked) then return 2 end
    return 0
  end
  take_out(stream, token)
  if job.err or not job[1] then return lose(id, name, queue, attempt, c, job.err) end
  if job[1] ~= token then return 0 end

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
  local _, submitted, missing = first_attempt(token, job[7], job[3])
  call('HSET', record, 'x' .. attempt,
    token .. ' ' .. logged .. ' ' .. a.elapsed .. ' ' .. now_text .. ' ' .. instance .. ' ' .. err, unpack(missing))
  if tonumber(attempt) > kept_attempts then call('HDEL', record, 'x' .. int(attempt - kept_attempts)) end
  if a.result ~= '' then call('HSET', record, 'r', a.result) end
  if logged == 'f' or logged == 'r' then call('HSET', record, 'f', int((tonumber(job[4]) or 0) + 1)) end

  local state = history[outcome]
  if state then
    if finish({record = record, id = id, name = name, queue = queue, attempt = attempt, err = err,
      state = outcome, history = state, history_ttl = ttl[outcome], ttl = a.record_ttl ~= '' and a.record_ttl or ttl[outcome], inbox = inbox,
      awaited = awaited, submitted = submitted, claims = c, wait = wait, grant = grant}) then
      freed[#freed + 1] = c.name
    end
    return answer
  end

  if outcome == 'b' then
    local mutex_token = c and c.mutex and take(c.mutex, wait, c.name, id, true)
    if c and c.mutex and not mutex_token then
      enqueue(wait, grant, c.mutex, record, c.name, route_of(a.ref, id))
    else
      dispatch(stream, record, id, spec, attempt + 1, tonumber(job[4]) or 0, tonumber(job[5]) or 0, mutex_token)
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
  plan(due, a.ref, now + delay)
  if c and c.mutex and free(c.mutex, wait, grant, c.name, id) then freed[#freed + 1] = c.name end
  return answer
end

local answers = {}

-- succeed settles successes, at the same attempt, of jobs of one name and stream that hold no claims: those whose records
-- name their entries, together. While a record does no other attempt was dispatched. The others are settled one by one.
local function succeed()
  local stream, name, queue, attempt, count = streams[tonumber(arg())], arg(), arg(), arg(), tonumber(arg())
  local id, token, elapsed, record = ai, ai + count, ai + 2 * count, ki
  ai, ki = ai + 3 * count, ki + count
  local current, tokens, n = {}, {}, 0
  for i = 1, count do
    local t = ARGV[token + i]
    if try('HGET', KEYS[record + i], 'p') == t and t ~= tokens[n] then
      n = n + 1
      current[i], tokens[n] = n, t
    end
  end
  local answer, inboxes = 1, {}
  if n > 0 then
    if acknowledge(stream, unpack(tokens)) ~= n then
      answer = 4
      take_out(stream, unpack(tokens))
    elseif take_out_all(stream, tokens) then
      answer = 4
    end
    if call('EXISTS', cancels, awaited) > 0 then
      local ids = {}
      for i, m in pairs(current) do ids[m] = ARGV[id + i] end
      try('HDEL', cancels, unpack(ids))
      inboxes = try('HMGET', awaited, unpack(ids))
    end
  end
  local succeeded, ttl = history.s, ttl.s
  local what, log, log_end = described(attempt, name, queue), 'x' .. attempt, ' ' .. now_text .. ' ' .. instance .. ' '
  local old_log = tonumber(attempt) > kept_attempts and 'x' .. int(attempt - kept_attempts)
  local answered = #answers
  for i = 1, count do
    local at, m = KEYS[record + i], current[i]
    local job = ARGV[id + i]
    if m then
      local entry = chronicle(succeeded, ttl, job, what, '')
      call('HSET', at, 'p', 's' .. entry, log, ARGV[token + i] .. ' s ' .. ARGV[elapsed + i] .. log_end)
      if old_log then call('HDEL', at, old_log) end
      call('PEXPIRE', at, ttl)
      if inboxes[m] then tell(awaited, job, inboxes[m], inbox) end
      answers[answered + i] = answer
    else
      answers[answered + i] = settle({id = job, token = ARGV[token + i], stream = stream, outcome = 's', elapsed = ARGV[elapsed + i],
        delay = 0, record_ttl = '', err = '', result = '', ref = '', name = name, queue = queue, attempt = attempt, record = at})
    end
  end
end

for _ = 1, tonumber(arg()) do succeed() end
for _ = 1, tonumber(arg()) do
  answers[#answers + 1] = settle({id = arg(), token = arg(), stream = streams[tonumber(arg())], outcome = arg(),
    elapsed = arg(), delay = tonumber(arg()), record_ttl = arg(), err = arg(), result = arg(), ref = arg(), name = arg(),
    queue = arg(), attempt = arg(), record = key(), claims = claims()})
end
wake(due, channel, segment)
keep_histories()
keep_books(taken)
return {answers, freed}
