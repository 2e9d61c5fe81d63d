-- finish makes a job final: one history entry, a time to live for the record,
-- its claims given back, and those who await it told. Returns true when jobs
-- wait for the mutex it held.
local touched = {}

-- first_attempt answers how many attempts a job had, when it was submitted, and fields to write down before it leaves its
-- place: as long as a new job is in its stream, its record does not say that this is the first attempt, nor a plain one that
-- it was submitted when its entry was. After a success of a plain job it never does, for the log of the attempt names the entry.
local function first_attempt(place, attempts, submitted)
  local entered = not attempts and place:match('^%d+')
  if not entered then return attempts, submitted, {} end
  submitted = submitted or entered
  return '1', submitted, {'a', '1', 's', submitted}
end

-- let_go gives a job's claims back. A key that is not ours is left as it is.
local function let_go(c, id, submitted, wait, grant)
  if not c then return false end
  for _, tag in ipairs(c.tags) do try('SREM', tag, id) end
  if c.own then try('ZREM', c.own, c.instance .. ':' .. id) end
  if c.unique and try('GET', c.unique) == id then
    local held_until = (tonumber(submitted) or 0) + c.keep
    if c.keep > 0 and held_until > now then
      call('PEXPIREAT', c.unique, int(held_until))
    else
      call('DEL', c.unique)
    end
  end
  return c.mutex and free(c.mutex, wait, grant, c.name, id)
end

-- described says in one field of a history which attempt was the last, and the name and the queue of the job.
local function described(attempt, name, queue) return attempt .. ' ' .. #name .. ' ' .. name .. queue end

-- chronicle adds a job's end to a history and answers the entry's ID.
local function chronicle(history, ttl, id, what, err)
  local entry = try('XADD', history, '*', 'i', id, 'd', what, 'e', err)
  if type(entry) == 'table' then return now_text .. '-0' end -- the key is not ours; the job is final all the same
  touched[history] = ttl
  return entry
end

-- tell reports a job's end to those who await it.
local function tell(awaited, id, inboxes, prefix)
  call('HDEL', awaited, id)
  for inbox in inboxes:gmatch('%S+') do call('PUBLISH', prefix .. inbox, id) end
end

-- give_notice is tell for a job that may not be awaited.
local function give_notice(awaited, id, prefix)
  local inboxes = try('HGET', awaited, id)
  if type(inboxes) == 'string' then tell(awaited, id, inboxes, prefix) end
end

local function finish(f)
  local entry = chronicle(f.history, f.history_ttl, f.id, described(f.attempt, f.name, f.queue), f.err)
  call('HSET', f.record, 'p', f.state .. entry)
  call('PEXPIRE', f.record, f.ttl)
  give_notice(f.awaited, f.id, f.inbox)
  return let_go(f.claims, f.id, f.submitted, f.wait, f.grant)
end

-- keep_histories gives every history that was written to a time to live.
local function keep_histories()
  for history, ttl in pairs(touched) do call('PEXPIRE', history, ttl) end
end
