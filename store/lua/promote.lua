-- promote moves jobs that are due to their streams, and tells what else the segment needs.
-- KEYS: due, wait, grant, workers, plan, relay, own, streams, then for each job: record, mutex when it has one
-- ARGV: number of streams, number of jobs, then for each job: ref, id, index of its stream, mutex name or '', route,
--       the instance whose own queue it is in or ''; then how many due refs to return
-- Returns: now, score of the next due job or -1, next tick in plan or -1, up to 20 lapsed workers,
--       refs that are due, mutexes to grant, refs that cannot be promoted each followed by the reason, sets
--       whose type is foreign, 1 when jobs wait to be relayed, refs whose instance does not read its own queue (any more)
-- Idempotent: a job whose score is above the server's time, or that left due, is passed over
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: base mutex dispatch
local due, wait, grant, workers, plan, relay, own = key(), key(), key(), key(), key(), key(), key()
local streams = keylist()
local bad, gone = {}, {}

local function reject(ref, reason)
  bad[#bad + 1] = ref
  bad[#bad + 1] = reason
end

for _ = 1, tonumber(arg()) do
  local ref, id, stream, name, route, instance = arg(), arg(), streams[tonumber(arg())], arg(), arg(), arg()
  local record, mutex = key(), name ~= '' and key()
  local score = call('ZSCORE', due, ref)
  if score and tonumber(score) <= now then
    local job = try('HMGET', record, 'a', 'f', 'l')
    local spec = not job.err and spec_of(record)
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
        dispatch(stream, record, id, spec, (tonumber(job[1]) or 0) + 1,
          tonumber(job[2]) or 0, tonumber(job[3]) or 0, token)
      end
    end
  end
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

local lapsed = ours(workers, try('ZRANGEBYSCORE', workers, '-inf', int(now), 'LIMIT', 0, 20))
local next_due, next_tick = head(due), head(plan)
local noted = call('TYPE', relay).ok
if noted ~= 'hash' and noted ~= 'none' then foreign[#foreign + 1] = relay end
local refs = next_due ~= '-1' and call('ZRANGEBYSCORE', due, '-inf', int(now), 'LIMIT', 0, tonumber(arg())) or {}
return {
  int(now), next_due, next_tick, lapsed, refs, ours(grant, try('ZRANGE', grant, 0, 99)), bad, foreign,
  noted == 'hash' and 1 or 0, gone,
}
