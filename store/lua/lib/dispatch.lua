-- dispatch appends the entry that makes a job runnable; the entry's ID is the
-- token of this attempt. It has one field, for every one costs at each step: the
-- attempt, the mutex token or '-', the length of the job's ID, the ID and the spec.
-- Large specs are not copied into the stream: the worker reads them from the record.

-- spec_of reads what dispatch puts into an entry, given field j1: nil when the record has none, '' when it is too large
-- for an entry, for large ones are not copied.
local function spec_of(record, j1)
  local size = j1 and part_size or try('HSTRLEN', record, 'j')
  if type(size) == 'table' or size == 0 then return nil end
  if size > inline_limit then return '' end
  local j = call('HGET', record, 'j')
  return j and joined(j, j1)
end

-- route_of turns a ref into the end of a waiting list's member.
local function route_of(ref, id)
  local priority, queue = ref:match('^(.):([^:]*):')
  return priority .. ':' .. queue .. ':' .. id
end

-- new is the fields of a new job, whose record does not count its first attempt: see lib/finish.
local function dispatch(stream, record, id, spec, attempt, failures, losses, mutex_token, new)
  local count = attempt
  if failures > 0 or losses > 0 then count = attempt .. '/' .. failures .. '/' .. losses end
  if #spec > inline_limit then spec = '' end
  local entry = call('XADD', stream, '*', 'e', count .. ' ' .. (mutex_token or '-') .. ' ' .. #id .. ' ' .. id .. spec)
  call('HSET', record, 'p', entry, unpack(new or {'a', attempt}))
end
