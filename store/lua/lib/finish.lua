-- finish makes a job final: one history entry, a time to live for the record,
-- its claims given back, and those who await it told. Returns true when jobs
-- wait for the mutex it held.
local touched = {}

local function finish(f)
  local e = call('XADD', f.history, '*', 'i', f.id, 'n', f.name, 'q', f.queue, 'a', f.attempt, 'e', f.err)
  touched[f.history] = f.history_ttl
  call('HSET', f.record, 'p', f.state .. e)
  call('PEXPIRE', f.record, f.ttl)
  if f.awaiting then
    for inbox in f.awaiting:gmatch('%S+') do call('PUBLISH', f.inbox .. inbox, f.id) end
  end
  local c = f.claims
  if not c then return false end
  for _, tag in ipairs(c.tags) do call('SREM', tag, f.id) end
  if c.unique and call('GET', c.unique) == f.id then
    local held_until = (tonumber(f.submitted) or 0) + c.keep
    if c.keep > 0 and held_until > now then
      call('PEXPIREAT', c.unique, int(held_until))
    else
      call('DEL', c.unique)
    end
  end
  return c.mutex and free(c.mutex, f.wait, f.grant, c.name, f.id)
end

-- keep_histories gives every history that was written to a time to live.
local function keep_histories()
  for history, ttl in pairs(touched) do call('PEXPIRE', history, ttl) end
end
