-- fire takes turns of schedules. A turn creates jobs, records what became of ticks, and moves its schedule on, also when
-- a job cannot be created or nothing can be recorded. One that was decided on what is no longer so changes nothing.
-- KEYS: due, wait, grant, tend, relay, plan, awaited, streams, then for each turn: schedule, ledger, then for each job of this
--       segment: record, claims
-- ARGV: control channel, segment, inbox of those who watch jobs, age of ledgers in ms, their count, number of streams,
--       number of turns, then for each turn:
--       in one, with spaces between: generation as it was read, time before which it is refused, 1 when jobs are relayed,
--       number of keys and of arguments after those named here, number of jobs, number of ticks to record, next tick as it
--       was read or '', next tick or '' for none, when to look as it was read or '', when to look or '' for never, tick that was fired or '';
--       name, state as it was read or '', state or '', then for each job:
--         'r', ID and note of one that goes to another segment; or the number of the tick below that is recorded as
--         fired by it, else 0, with w in front when it is watched, and the job as in lib/accept;
--       then the line of each tick to record
-- Returns: for each turn a list: '' taken, 'l' .. m taken but its ledger has the wrong type, '-' not as it was read, parked,
--       or too early, 'w' .. m refused for the type of a key; when it was taken, then for each job its answer as in
--       lib/accept, or 'r' when it was noted in relay
-- Idempotent: by generation, next tick and state. One that leaves these as they are can be taken again: the IDs of its
--       jobs are the same, so each is answered '=', and a tick has one entry in the ledger, as has a range
--       that ends there
-- Memory: refused when Redis is out of memory
-- include: base mutex spec dispatch plan claims watch accept fields refuse ledger
local due, wait, grant, tend, relay, ticks, awaited = key(), key(), key(), key(), key(), key(), key()
local channel, segment, inbox, age, count = arg(), arg(), arg(), arg(), tonumber(arg())
local streams = keylist()
call('ZCARD', ticks) -- a foreign type ends it here
local noted = call('TYPE', relay).ok
local sound_relay = noted == 'hash' or noted == 'none'
local soonest

local moves = {} -- in the plan, made for all turns at once

local function create(refused)
  local mark = arg()
  if mark == 'r' then
    call('HSET', relay, arg(), arg())
    return 'r'
  end
  local watched, line = mark:match('^(w?)(%d+)$')
  local answer = accept(new_job(streams), due, wait, grant, tend, awaited, watched == 'w' and inbox or nil)
  if answer ~= '' and answer ~= '=' then refused[tonumber(line)] = true end
  return answer
end

-- refuse passes over what follows of a turn.
local function refuse(answer, keys, args)
  ki, ai = ki + tonumber(keys), ai + tonumber(args)
  return {answer}
end

local twelve = '^' .. string.rep('(%S*) ', 11) .. '(%S*)$'

local function turn()
  local schedule, ledger = key(), key()
  local generation, earliest, relays, keys, args, jobs, lines, tick, following, looked, look, last = arg():match(twelve)
  local name, state, remembered = arg(), arg(), arg()
  local current = try('HMGET', schedule, 'g', 'n', 'x', 'e')
  if current.err then return refuse('w' .. current.err, keys, args) end
  if current[1] ~= generation or (current[2] or '') ~= tick or (current[3] or '') ~= state or current[4] or now < tonumber(earliest) then
    return refuse('-', keys, args)
  end
  if relays == '1' and not sound_relay then return refuse('wWRONGTYPE relay is a ' .. noted, keys, args) end
  local f = fields({n = current[2], x = current[3], k = true})
  f.put('n', following)
  f.put('k', look)
  f.put('l', last)
  f.put('x', remembered)
  local answers = {''}
  local refused = {}
  for i = 1, tonumber(jobs) do answers[1 + i] = create(refused) end
  if not f.set[1] then f.put('g', generation) end -- as it is; so there is a write that is refused when Redis is out of memory
  call('HSET', schedule, unpack(f.set))
  if f.unset[1] then call('HDEL', schedule, unpack(f.unset)) end
  if look == '' then
    call('ZREM', ticks, name)
  else
    moves[#moves + 1] = look
    moves[#moves + 1] = name
    local at, before = tonumber(look), tonumber(looked)
    if (not before or at < before) and (not soonest or at < soonest) then soonest = at end
  end
  local foreign = keep(ledger, age, count, tonumber(lines), refused)
  if foreign then answers[1] = 'l' .. foreign end
  return answers
end

local answers = {}
for i = 1, tonumber(arg()) do answers[i] = turn() end
if moves[1] then call('ZADD', ticks, unpack(moves)) end
wake(due, channel, segment)
if soonest then call('PUBLISH', channel, 's ' .. segment .. ' ' .. int(soonest)) end
return answers
