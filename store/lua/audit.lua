-- audit tells what does not add up in the streams of a segment, and writes off what was looked into since.
-- KEYS: taken, own, streams
-- ARGV: number of streams, then for each stream how many missing entries to write off
-- Returns: for each stream: how many entries are missing, below 0 when the stream began anew, or '' when the server does
--       not count them; entries; pending ones; the last one that was delivered or ''; then the members of own
-- Idempotent: what was written off is missing no more
-- Memory: only writing off is refused when Redis is out of memory
-- include: base
local taken, own = key(), key()
local streams = keylist()
local books = {}

local function field(list, name)
  for i = 1, #list - 1, 2 do
    if list[i] == name then return list[i + 1] end
  end
end

for i, stream in ipairs(streams) do
  local off = tonumber(arg())
  local missing, length, pending, last = '', 0, 0, ''
  if try('EXISTS', stream) == 0 then
    missing = -(tonumber(call('HGET', taken, stream) or 0) or 0)
  else
    local info = try('XINFO', 'STREAM', stream)
    length = field(info, 'length') or 0
    local added = field(info, 'entries-added')
    if added then missing = added - length - (tonumber(call('HGET', taken, stream) or 0) or 0) end
    for _, group in ipairs(info.err and {} or try('XINFO', 'GROUPS', stream)) do
      if field(group, 'name') == 'w' then
        pending, last = field(group, 'pending'), field(group, 'last-delivered-id')
      end
    end
  end
  if missing ~= '' and off ~= 0 and missing * off > 0 and math.abs(missing) >= math.abs(off) then
    call('HINCRBY', taken, stream, int(off))
    missing = missing - off
  end
  books[i] = {missing, length, pending, last}
end
local members = try('ZRANGE', own, 0, -1)
books[#books + 1] = members.err and {} or members
return books
