-- watch asks that an inbox is told when a job is final; it is noted once. Returns
-- the job's place, or '' when there is no such job.
local function watch(record, inbox)
  local job = redis.call('HMGET', record, 'p', 'aw')
  if not job[1] or job[1] == 'v' then return '' end
  local state = job[1]:sub(1, 1)
  if state == 's' or state == 'f' or state == 'c' or state == 'x' then return job[1] end
  local inboxes = job[2] or ''
  if not (' ' .. inboxes .. ' '):find(' ' .. inbox .. ' ', 1, true) then
    redis.call('HSET', record, 'aw', inboxes == '' and inbox or inboxes .. ' ' .. inbox)
  end
  return job[1]
end
