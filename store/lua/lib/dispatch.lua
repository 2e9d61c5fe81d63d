-- dispatch appends the entry that makes a job runnable; the entry's ID is the
-- token of this attempt. Large specs are not copied into the stream: the worker
-- reads them from the record.
local inline_limit = 4096

-- spec_of reads what dispatch puts into an entry: nil when the record has none, '' when it is too large for an entry.
local function spec_of(record)
  local size = try('HSTRLEN', record, 'j')
  if type(size) == 'table' or size == 0 then return nil end
  return size > inline_limit and '' or call('HGET', record, 'j')
end

-- route_of turns a ref into the end of a waiting list's member.
local function route_of(ref, id)
  local priority, queue = ref:match('^(.):([^:]*):')
  return priority .. ':' .. queue .. ':' .. id
end

-- more is what else goes into the record: fields of a new job.
local function dispatch(stream, record, id, spec, attempt, failures, losses, mutex_token, more)
  local count = attempt
  if failures > 0 or losses > 0 then count = attempt .. '/' .. failures .. '/' .. losses end
  if #spec > inline_limit then spec = '' end
  local entry
  if mutex_token then
    entry = call('XADD', stream, '*', 'i', id, 'a', count, 'j', spec, 'm', mutex_token)
  else
    entry = call('XADD', stream, '*', 'i', id, 'a', count, 'j', spec)
  end
  call('HSET', record, 'p', 'q' .. entry, 'a', attempt, unpack(more or {}))
end
