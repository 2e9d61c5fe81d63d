-- schedule_put stores a schedule's definition as a new generation, if the schedule is still as it was read. Or it replaces
-- the definition by one that says the same in other bytes; then the generation, the plan and the state stay.
-- KEYS: schedule, plan, versions, ledger, the set of all schedules, the set of the group it leaves, if it does, and of the one it is in now
-- ARGV: name, as it was read: generation or '' when there was none, state or '', next tick or ''; 1 when the definition says the
--       same, else 0;
--       definition, next tick or '', when to look or '', state or '', group or '', version (what is kept of this
--       generation), how many versions are kept, control channel, segment, 1 when it leaves a group,
--       1 when it is in one now, age of ledgers in ms, their count, number of ticks to record, then the line of each
-- Returns: generation and 1; 0 and 0 when the schedule is not as it was read
-- Idempotent: a version that is the current one already is not made again; generations grow, also from a deleted
--       schedule to one of the same name, so no other call is taken for this one
-- Memory: refused when Redis is out of memory
-- include: base fields refuse ledger
local schedule, ticks, versions, ledger, all = key(), key(), key(), key(), key()
local name, generation, state, tick, same = arg(), arg(), arg(), arg(), arg() == '1'
local definition, following, look, remembered, group = arg(), arg(), arg(), arg(), arg()
local version, limit, channel, segment = arg(), tonumber(arg()), arg(), arg()
local left, joined = arg() == '1' and key(), arg() == '1' and key()

local names = {'g', 'x', 'e', 'd', 'n', 'k', 'gr'}
local values = call('HMGET', schedule, 'g', 'x', 'e', 'd', 'n', 'k', 'gr')
local known = {}
for i, field in ipairs(names) do known[field] = values[i] end
local current = call('EXISTS', schedule) == 1 and int(whole(known.g)) or ''
local made = call('HKEYS', versions)
call('ZCARD', ticks)
call('SCARD', all)
if left then call('SCARD', left) end
if joined then call('SCARD', joined) end

if current ~= generation then
  local again = not same and current ~= '' and call('HGET', versions, current) == version
  return again and {tonumber(current), 1} or {0, 0}
end
if same then
  if generation == '' or known.e then return {0, 0} end
  if known.d ~= definition then
    call('HSET', schedule, 'd', definition)
    call('HSET', versions, generation, version)
  end
  return {tonumber(generation), 1}
end
if (known.x or '') ~= state or (known.n or '') ~= tick then return {0, 0} end

local last = whole(known.g)
for _, g in ipairs(made) do last = math.max(last, whole(g)) end
local new = int(last + 1)
local f = fields(known)
f.put('g', new)
f.put('d', definition)
f.put('n', following)
f.put('k', look)
f.put('x', remembered)
f.put('gr', group)
f.put('e', '')
call('HSET', schedule, unpack(f.set))
if f.unset[1] then call('HDEL', schedule, unpack(f.unset)) end
call('HSET', versions, new, version)
call('PERSIST', versions)
for _, g in ipairs(made) do
  if whole(g) <= last + 1 - limit then call('HDEL', versions, g) end
end
call('SADD', all, name)
if left then call('SREM', left, name) end
if joined then call('SADD', joined, name) end
if look == '' then
  call('ZREM', ticks, name)
else
  call('ZADD', ticks, look, name)
  call('PUBLISH', channel, 's ' .. segment .. ' ' .. look)
end
local age, count = arg(), tonumber(arg())
keep(ledger, age, count, tonumber(arg()), {}) -- when it is of a wrong type, turns say so
return {last + 1, 1}
