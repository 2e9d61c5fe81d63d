-- promote moves jobs that are due to their streams, and tells what else the segment needs.
-- KEYS: due, wait, grant, workers, plan, relay, own, streams, then in each stretch for each plain job: record; then for each
--       other job: record, mutex when it has one
-- ARGV: number of streams, number of stretches, then for each of them:
--       number of groups of plain jobs, without mutex and of a queue that everybody reads, then for each group: index of the
--       stream, number of jobs, their refs, their IDs;
--       number of other jobs, then for each: ref, id, index of its stream, mutex name or '', route, the instance whose own
--       queue it is in or '';
--       then how many due refs to return
-- Returns: now, score of the next due job or -1, next tick in plan or -1, up to 20 lapsed workers,
--       refs that are due, mutexes to grant, refs that cannot be promoted each followed by the reason, sets
--       whose type is foreign, 1 when jobs wait to be relayed, refs whose instance does not read its own queue (any more)
-- Idempotent: a job whose score is above the server's time, or that left due, is passed over
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: base mutex spec dispatch
local due, wait, grant, workers, plan, relay, own = key(), key(), key(), key(), key(), key(), key()
local streams = keylist()
local bad, gone = {}, {}

local function reject(ref, reason)
  bad[#bad + 1] = ref
  bad[#bad + 1] = reason
end

-- count reads one of the numbers of a record.
local function count(n) return tonumber(n) or 0 end

local function send(stream, record, id, spec, job, token)
  dispatch(stream, record, id, spec, job[1] and int(count(job[1]) + 1) or '1', count(job[2]), count(job[3]), token)
end

local function promote_plain()
  local stream, jobs = streams[tonumber(arg())], tonumber(arg())
  local ref, id, record = ai, ai + jobs, ki
  ai, ki = ai + 2 * jobs, ki + jobs
  local scores = call('ZMSCORE', due, unpack(ARGV, ref + 1, ref + jobs))
  local length = try('XLEN', stream)
  local ready, refs, known, specs = {}, {}, {}, {}
  for i = 1, jobs do
    if scores[i] and tonumber(scores[i]) <= now then
      local job = try('HMGET', KEYS[record + i], 'a', 'f', 'l', 'j1')
      local spec = not job.err and spec_of(KEYS[record + i], job[4])
      if job.err or type(length) == 'table' or not spec then
        reject(ARGV[ref + i], job.err or type(length) == 'table' and length.err or 'the record is gone')
      else
        ready[#ready + 1], refs[#refs + 1] = i, ARGV[ref + i]
        known[i], specs[i] = job, spec
      end
    end
  end
  if not ready[1] then return end
  call('ZREM', due, unpack(refs))
  for _, i in ipairs(ready) do send(stream, KEYS[record + i], ARGV[id + i], specs[i], known[i]) end
end

local function promote()
  local ref, id, stream, name, route, instance = arg(), arg(), streams[tonumber(arg())], arg(), arg(), arg()
  local record, mutex = key(), name ~= '' and key()
  local score = call('ZSCORE', due, ref)
  if score and tonumber(score) <= now then
    local job = try('HMGET', record, 'a', 'f', 'l', 'j1')
    local spec = not job.err and spec_of(record, job[4])
    local length = try('XLEN', stream)
    local problem = mutex and unsound(mutex, wait, grant)
    local reads, lease = true, nil
    if instance ~= '' then
      reads, lease = try('ZSCORE', own, instance .. ':'), try('ZSCORE', workers, instance)
      problem = type(reads) == 'table' and reads.err or type(lease) == 'table' and lease.err
      reads = reads and lease and not problem and tonumber(lease) > 0 -- below: its work is being reclaimed
    end
    if job.err then
      reject(ref, job.err)
    elseif type(length) == 'table' then
      reject(ref, length.err)
    elseif problem then
      reject(ref, problem)
    elseif not spec then
      reject(ref, 'the record is gone')
    elseif not reads then
      gone[#gone + 1] = ref
    else
      call('ZREM', due, ref)
      local token = mutex and take(mutex, wait, name, id)
      if mutex and not token then
        enqueue(wait, grant, mutex, record, name, route)
      else
        send(stream, record, id, spec, job, token)
      end
    end
  end
end

for _ = 1, tonumber(arg()) do
  for _ = 1, tonumber(arg()) do promote_plain() end
  for _ = 1, tonumber(arg()) do promote() end
end

local foreign = {}

-- ours reads a set of a foreign type as empty, so that it holds up nothing else.
local function ours(set, reply)
  if not reply.err then return reply end
  foreign[#foreign + 1] = set
  return {}
end

local function head(set)
  local h = ours(set, try('ZRANGE', set, 0, 0, 'WITHSCORES'))
  return h[2] and int(tonumber(h[2])) or '-1'
end

local lapsed = ours(workers, try('ZRANGEBYSCORE', workers, '-inf', now_text, 'LIMIT', 0, 20))
local next_due, next_tick = head(due), head(plan)
local noted = call('TYPE', relay).ok
if noted ~= 'hash' and noted ~= 'none' then foreign[#foreign + 1] = relay end
local refs = next_due ~= '-1' and call('ZRANGEBYSCORE', due, '-inf', now_text, 'LIMIT', 0, tonumber(arg())) or {}
return {
  now_text, next_due, next_tick, lapsed, refs, ours(grant, try('ZRANGE', grant, 0, 99)), bad, foreign,
  noted == 'hash' and 1 or 0, gone,
}
