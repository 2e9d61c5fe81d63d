-- dispatch appends the entry that makes a job runnable; the entry's ID is the
-- token of this attempt. Large specs are not copied into the stream: the worker
-- reads them from the record.
local inline_limit = 4096

local function dispatch(stream, record, id, spec, attempt, failures, losses, mutex_token)
  local count = attempt
  if failures > 0 or losses > 0 then count = attempt .. '/' .. failures .. '/' .. losses end
  if #spec > inline_limit then spec = '' end
  local entry
  if mutex_token then
    entry = call('XADD', stream, '*', 'i', id, 'a', count, 'j', spec, 'm', mutex_token)
  else
    entry = call('XADD', stream, '*', 'i', id, 'a', count, 'j', spec)
  end
  call('HSET', record, 'p', 'q' .. entry, 'a', attempt)
end
