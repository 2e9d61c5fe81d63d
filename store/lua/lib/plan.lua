-- plan puts a job into due. When it became the head, the promoter is told by a
-- hint; it would find out within its poll interval anyway.
local planned = {}

local function plan(due, ref, at)
  call('ZADD', due, int(at), ref)
  planned[ref] = true
end

local function wake(due, channel, segment)
  if next(planned) == nil then return end
  local head = call('ZRANGE', due, 0, 0, 'WITHSCORES')
  if head[1] and planned[head[1]] then
    call('PUBLISH', channel, 'd ' .. segment .. ' ' .. int(tonumber(head[2])))
  end
end
