-- submit stores a batch of new jobs, each due later, waiting for its mutex, or runnable at once.
-- KEYS: due, wait, grant, tend, streams, then for each job as in lib/accept
-- ARGV: control channel, segment, number of streams, number of jobs, then for each as in lib/accept
-- Returns: one answer for each job, as in lib/accept
-- Idempotent: by job ID; an equal job is answered '=' and changes nothing
-- Memory: refused when Redis is out of memory
-- include: base mutex spec dispatch plan claims watch accept
local due, wait, grant, tend = key(), key(), key(), key()
local channel, segment = arg(), arg()
local streams = keylist()
local answers = {}
for i = 1, tonumber(arg()) do answers[i] = accept(new_job(streams), due, wait, grant, tend) end
wake(due, channel, segment)
return answers
