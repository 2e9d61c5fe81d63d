-- finish makes a job final: one history entry, a time to live for the record,
-- its claims given back, and those who await it told. Returns true when jobs
-- wait for the mutex it held.
local touched = {}

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

local function finish(f)
  local e = try('XADD', f.history, '*', 'i', f.id, 'n', f.name, 'q', f.queue, 'a', f.attempt, 'e', f.err)
  if type(e) == 'table' then e = int(now) .. '-0' end -- the key is not ours; the job is final all the same
  touched[f.history] = f.history_ttl
  call('HSET', f.record, 'p', f.state .. e)
  call('PEXPIRE', f.record, f.ttl)
  if f.awaiting then
    for inbox in f.awaiting:gmatch('%S+') do call('PUBLISH', f.inbox .. inbox, f.id) end
  end
  return let_go(f.claims, f.id, f.submitted, f.wait, f.grant)
end

-- keep_histories gives every history that was written to a time to live.
local function keep_histories()
  for history, ttl in pairs(touched) do call('PEXPIRE', history, ttl) end
end
