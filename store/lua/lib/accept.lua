-- accept stores one new job. new_job reads it, from KEYS: record, claims; from ARGV:
-- id, spec, in one: index of its stream, start (0 = now, > 0 = at that ms, < 0 =
-- after that many ms); claims, ref and route for the waiting list unless it starts now
-- and has no mutex here, claims to tend. Everything is checked before the first write.
-- inbox, if not nil, is noted in awaited.
-- Answers
--   ''        accepted
--   '='       the same job is already there
--   '!'       another job has this ID
--   'u' .. id the unique key is held by job id
--   'l' .. v  a job with this ID is noted to be in another segment
--   'v'       a claim was taken over meanwhile: begin again
--   'e' .. m  a key has the wrong type
local sound = {} -- places whose type was checked

-- born lists the fields of a new record, beside its place. The list is used again.
local fields_of_new = {'j', '', 'j1', ''}
local function born(spec)
  local f = fields_of_new
  if #spec > part_size and #spec <= 2 * part_size then
    f[2], f[3], f[4] = spec:sub(1, part_size), 'j1', spec:sub(part_size + 1)
  else
    f[2], f[3], f[4] = spec, nil, nil
  end
  return f
end

local function new_job(streams)
  local job = {id = arg(), spec = arg(), record = key(), foreign = {}}
  local stream, start = arg():match('^(%d+) (%-?%d+)$')
  job.stream, job.start = streams[tonumber(stream)], tonumber(start)
  job.claims = claims()
  if job.start ~= 0 or job.claims and job.claims.mutex then job.ref, job.route = arg(), arg() end
  for i = 1, tonumber(arg()) do job.foreign[i] = arg() end
  return job
end

local function accept(job, due, wait, grant, tend, awaited, inbox)
  local id, spec, stream, start, record, c, foreign = job.id, job.spec, job.stream, job.start, job.record, job.claims, job.foreign
  local known = try('HMGET', record, 'j', 'p', 'j1')
  if known.err then return 'e' .. known.err end
  if known[1] then
    if joined(known[1], known[3]) ~= spec then return '!' end
    if inbox then watch(record, awaited, id, inbox) end
    return '='
  end
  if known[2] and known[2] ~= 'v' then return '!' end
  if known[2] and foreign[1] then return 'v' end -- its claims may be the ones that were taken over
  if c then
    local elsewhere = c.locator and try('GET', c.locator)
    if elsewhere then return type(elsewhere) == 'table' and 'e' .. elsewhere.err or 'l' .. elsewhere end
    if c.unique then
      local holder = try('GET', c.unique)
      if type(holder) == 'table' and holder.err then return 'e' .. holder.err end
      if holder then return 'u' .. holder end -- also for a job of this ID that is forgotten
    end
    local problem = c.mutex and unsound(c.mutex, wait, grant)
    if problem then return 'e' .. problem end
    for _, tag in ipairs(c.tags) do
      local probe = try('SCARD', tag)
      if type(probe) == 'table' and probe.err then return 'e' .. probe.err end
    end
    local probe = c.own and try('ZCARD', c.own)
    if type(probe) == 'table' then return 'e' .. probe.err end
  end
  if foreign[1] then
    local probe = try('ZCARD', tend)
    if type(probe) == 'table' then return 'e' .. probe.err end
  end
  local place = start == 0 and stream or due
  if not sound[place] then
    local probe = try(start == 0 and 'XLEN' or 'ZCARD', place)
    if type(probe) == 'table' and probe.err then return 'e' .. probe.err end
    sound[place] = true
  end

  local new = {'s', now_text, unpack(born(spec))}
  if known[2] then call('PERSIST', record) end
  for _, claim in ipairs(foreign) do call('ZADD', tend, int(now + 3600000), claim) end
  if c then
    if c.unique then call('SET', c.unique, id) end
    for _, tag in ipairs(c.tags) do call('SADD', tag, id) end
    if c.own then call('ZADD', c.own, 0, c.instance .. ':' .. id) end
  end
  if start ~= 0 then
    if start < 0 then start = now - start end
    call('HSET', record, 'p', 'd', unpack(new))
    plan(due, job.ref, start)
  elseif c and c.mutex then
    local token = take(c.mutex, wait, c.name, id)
    if token then
      dispatch(stream, record, id, spec, '1', 0, 0, token, new)
    else
      call('HSET', record, unpack(new))
      enqueue(wait, grant, c.mutex, record, c.name, job.route)
    end
  else
    dispatch(stream, record, id, spec, '1', 0, 0, nil, new)
  end
  if inbox then watch(record, awaited, id, inbox) end
  return ''
end
