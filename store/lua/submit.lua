-- submit stores a batch of new jobs, each due later, waiting for its mutex, or runnable at once.
-- KEYS: due, wait, grant, tend, streams, then in each stretch for each plain job: record; then for each other job as in lib/accept
-- ARGV: control channel, segment, number of streams, number of stretches, then for each of them:
--       number of groups of plain jobs, runnable at once and without claims, then for each group: index of the stream,
--       number of jobs, then for each of them: id, spec;
--       number of other jobs, then for each as in lib/accept
-- Returns: one answer for each job, in the order of ARGV, as in lib/accept
-- Idempotent: by job ID; an equal job is answered '=' and changes nothing
-- Memory: refused when Redis is out of memory
-- include: base mutex dispatch plan claims watch accept
local due, wait, grant, tend = key(), key(), key(), key()
local channel, segment = arg(), arg()
local streams = keylist()
local answers = {}

-- accept_plain stores jobs of one stream. Their IDs differ. When one may be there already, each is looked at.
local function accept_plain()
  local stream, count = streams[tonumber(arg())], tonumber(arg())
  local all_new = try('EXISTS', unpack(KEYS, ki + 1, ki + count)) == 0 and type(try('XLEN', stream)) == 'number'
  for _ = 1, count do
    local id, spec, record = arg(), arg(), key()
    if all_new then
      dispatch(stream, record, id, spec, '1', 0, 0, nil, born(spec))
      answers[#answers + 1] = ''
    else
      answers[#answers + 1] = accept({id = id, spec = spec, stream = stream, start = 0, record = record, foreign = {}},
        due, wait, grant, tend)
    end
  end
end

for _ = 1, tonumber(arg()) do
  for _ = 1, tonumber(arg()) do accept_plain() end
  for _ = 1, tonumber(arg()) do answers[#answers + 1] = accept(new_job(streams), due, wait, grant, tend) end
end
wake(due, channel, segment)
return answers
