-- grant gives a free mutex to the job that waits longest.
-- KEYS: wait, grant, mutex, then when a waiter is named: its record, its stream
-- ARGV: mutex name, waiter as returned by the call before or '', id of the waiter's job
-- Returns: '' when there is nothing left to do; otherwise the waiter to name in the next call;
--       'e' .. reason when the named waiter cannot be dispatched
-- Idempotent: by the waiter, which must still be the first, and the mutex, which must be free
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: base mutex spec dispatch
local wait, grant, mutex = key(), key(), key()
local name, named, id = arg(), arg(), arg()
local holder = try('HGET', mutex, 'h')
if type(holder) == 'string' then
  call('ZREM', grant, name)
  return ''
end
local first = first_waiter(wait, name)
if not first then
  call('ZREM', grant, name)
  if not holder then call('PEXPIRE', mutex, 3600000) end
  return ''
end
if first ~= named then return 'w' .. first end
if holder then return 'e' .. holder.err end
local record, stream = key(), key()
local job = try('HMGET', record, 'a', 'f', 'l', 'j1')
local spec = not job.err and spec_of(record, job[4])
if job.err then return 'e' .. job.err end
if not spec then return 'ethe record is gone' end
local length = try('XLEN', stream)
if type(length) == 'table' then return 'e' .. length.err end
call('ZREM', wait, first)
call('ZREM', grant, name)
dispatch(stream, record, id, spec, (tonumber(job[1]) or 0) + 1,
  tonumber(job[2]) or 0, tonumber(job[3]) or 0, take(mutex, wait, name, id, true))
return ''
