-- await asks that an inbox is told when a job is final.
-- KEYS: record
-- ARGV: inbox
-- Returns: the job's place, or '' when there is no such job
-- Idempotent: an inbox is noted once
-- Memory: refused when Redis is out of memory
local job = redis.call('HMGET', KEYS[1], 'p', 'aw')
if not job[1] or job[1] == 'v' then return '' end
local state = job[1]:sub(1, 1)
if state == 's' or state == 'f' or state == 'c' or state == 'x' then return job[1] end
local inboxes = job[2] or ''
if not (' ' .. inboxes .. ' '):find(' ' .. ARGV[1] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'aw', inboxes == '' and ARGV[1] or inboxes .. ' ' .. ARGV[1])
end
return job[1]
