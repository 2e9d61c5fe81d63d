-- Every entry that leaves a stream is counted in the hash taken, so that an audit
-- notices when somebody else took some: what was ever added is there or was taken.
local took = {}

-- take_out deletes entries, and counts those that were there.
local function take_out(stream, ...)
  local n = try('XDEL', stream, ...)
  if type(n) == 'number' then took[stream] = (took[stream] or 0) + n end
  return n
end

local function keep_books(taken)
  for stream, n in pairs(took) do
    if n ~= 0 then try('HINCRBY', taken, stream, n) end
  end
end
