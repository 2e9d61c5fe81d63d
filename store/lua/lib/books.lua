-- Every entry that leaves a stream is counted in the hash taken, so that an audit
-- notices when somebody else took some: what was ever added is there or was taken.
local took = {}

-- take_out deletes an entry, and counts it if it was there.
local function take_out(stream, entry)
  local n = try('XDEL', stream, entry)
  if n == 1 then took[stream] = (took[stream] or 0) + 1 end
  return n
end

local function keep_books(taken)
  for stream, n in pairs(took) do
    if n ~= 0 then try('HINCRBY', taken, stream, n) end
  end
end
