-- fire takes turns of schedules. A turn creates jobs, records what became of ticks, and moves its schedule on, also when
-- a job cannot be created or nothing can be recorded. One that was decided on what is no longer so changes nothing.
-- KEYS: due, wait, grant, tend, relay, plan, streams, then for each turn: schedule, ledger, then for each job of this
--       segment: record, claims
-- ARGV: control channel, segment, inbox of those who watch jobs, age of ledgers in ms, their count, number of streams,
--       number of turns, then for each turn:
--       name, as it was read: generation, next tick or '', state or ''; time before which it is refused, 1 when jobs are
--       relayed, number of keys and of arguments from here to the next turn;
--       next tick or '' for none, when to look again or '' for never, tick that was fired or '', state or '',
--       number of jobs, then for each job:
--         ID and note, of one that goes to another segment; or '', 1 when it is watched, the number of the tick below
--         that is recorded as fired by it, else 0, and the job as in lib/accept;
--       number of ticks to record, then for each: tick, text
-- Returns: for each turn a list: '' taken, 'l' .. m taken but its ledger has the wrong type, '-' not as it was read, parked,
--       or too early, 'w' .. m refused for the type of a key; when it was taken, then for each job its answer as in
--       lib/accept, or 'r' when it was noted in relay
-- Idempotent: by generation, next tick and state. One that leaves these as they are can be taken again: the IDs of its
--       jobs are the same, so each is answered '=', and a tick has one entry in the ledger, as has a range
--       that ends there
-- Memory: refused when Redis is out of memory
-- include: base mutex dispatch plan claims watch accept fields refuse ledger
local due, wait, grant, tend, relay, ticks = key(), key(), key(), key(), key(), key()
local channel, segment, inbox, age, count = arg(), arg(), arg(), arg(), tonumber(arg())
local streams = keylist()
call('ZCARD', ticks) -- a foreign type ends it here
local noted = call('TYPE', relay).ok
local sound_relay = noted == 'hash' or noted == 'none'
local soonest

local function create(id, refused)
  if id ~= '' then
    call('HSET', relay, id, arg())
    return 'r'
  end
  local watcher, line = arg() == '1' and inbox or nil, tonumber(arg())
  local answer = accept(due, wait, grant, tend, streams, watcher)
  if answer ~= '' and answer ~= '=' then refused[line] = true end
  return answer
end

-- refuse passes over what follows of a turn.
local function refuse(answer, keys, args)
  ki, ai = ki + keys, ai + args
  return {answer}
end

local function turn()
  local schedule, ledger = key(), key()
  local name, generation, tick, state = arg(), arg(), arg(), arg()
  local earliest, relays, keys, args = tonumber(arg()), arg(), tonumber(arg()), tonumber(arg())
  local current = try('HMGET', schedule, 'g', 'n', 'x', 'e', 'k')
  if current.err then return refuse('w' .. current.err, keys, args) end
  if current[1] ~= generation or (current[2] or '') ~= tick or (current[3] or '') ~= state or current[4] or now < earliest then
    return refuse('-', keys, args)
  end
  if relays == '1' and not sound_relay then return refuse('wWRONGTYPE relay is a ' .. noted, keys, args) end
  local f = fields({n = current[2], x = current[3], k = current[5]})
  f.put('g', generation) -- as it is; so there is a write that is refused when Redis is out of memory
  f.put('n', arg())
  local look = arg()
  f.put('k', look)
  f.put('l', arg())
  f.put('x', arg())
  local answers = {''}
  local refused = {}
  for _ = 1, tonumber(arg()) do answers[#answers + 1] = create(arg(), refused) end
  call('HSET', schedule, unpack(f.set))
  if f.unset[1] then call('HDEL', schedule, unpack(f.unset)) end
  if look == '' then
    call('ZREM', ticks, name)
  else
    call('ZADD', ticks, look, name)
    local at, before = tonumber(look), tonumber(current[5] or '')
    if (not before or at < before) and (not soonest or at < soonest) then soonest = at end
  end
  local foreign = keep(ledger, age, count, tonumber(arg()), refused)
  if foreign then answers[1] = 'l' .. foreign end
  return answers
end

local answers = {}
for i = 1, tonumber(arg()) do answers[i] = turn() end
wake(due, channel, segment)
if soonest then call('PUBLISH', channel, 's ' .. segment .. ' ' .. int(soonest)) end
return answers
