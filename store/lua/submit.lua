-- submit stores a batch of new jobs, each due later, waiting for its mutex, or runnable at once.
-- KEYS: due, wait, grant, tend, streams, then for each job: record, claims
-- ARGV: control channel, segment, number of streams, number of jobs, then for each job as in lib/accept
-- Returns: one answer for each job, as in lib/accept
-- Idempotent: by job ID; an equal job is answered '=' and changes nothing
-- Memory: refused when Redis is out of memory
-- include: base mutex dispatch plan claims watch accept
local due, wait, grant, tend = key(), key(), key(), key()
local channel, segment = arg(), arg()
local streams = keylist()
local answers = {}
for i = 1, tonumber(arg()) do answers[i] = accept(due, wait, grant, tend, streams) end
wake(due, channel, segment)
return answers
