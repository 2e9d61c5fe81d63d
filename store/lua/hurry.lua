-- hurry makes a job that is planned for later due now.
-- KEYS: due, record
-- ARGV: ref, control channel, segment
-- Returns: 1 due now, 0 the job is not planned for later, -1 no such job
-- Idempotent: a job that left due is left alone
-- Memory: refused when Redis is out of memory
-- include: base plan
local due, record = key(), key()
local ref, channel, segment = arg(), arg(), arg()
if call('EXISTS', record) == 0 then return -1 end
local score = call('ZSCORE', due, ref)
if not score then return 0 end
if tonumber(score) > now then
  plan(due, ref, now)
  wake(due, channel, segment)
end
return 1
