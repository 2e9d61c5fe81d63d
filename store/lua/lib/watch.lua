-- watch asks that an inbox is told when a job is final; it is noted once in the
-- hash awaited, which lasts 30 days from the last one. Whoever waits asks, too. Returns the
-- job's place, or '' when there is no such job.
local function watch(record, awaited, id, inbox)
  local place = redis.call('HGET', record, 'p')
  if not place or place == 'v' then return '' end
  local state = place:sub(1, 1)
  if state == 's' or state == 'f' or state == 'c' or state == 'x' then return place end
  local inboxes = redis.pcall('HGET', awaited, id) or ''
  if type(inboxes) == 'string' then -- else the key is not ours, and nobody is told
    if not (' ' .. inboxes .. ' '):find(' ' .. inbox .. ' ', 1, true) then
      redis.call('HSET', awaited, id, inboxes == '' and inbox or inboxes .. ' ' .. inbox)
    end
    redis.call('PEXPIRE', awaited, 2592000000)
  end
  return place
end
