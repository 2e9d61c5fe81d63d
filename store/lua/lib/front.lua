-- Entries that leave their stream together from its front.

-- parsed makes an entry's ID two numbers.
local function parsed(entry)
  local ms, seq = entry:match('^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

-- take_out_all is take_out for entries in ascending order that were acknowledged just now, each of them. What was delivered
-- and is not pending is settled. So those in front of whatever is pending go by whole nodes of the stream; XDEL walks
-- through a node for each one. It returns true when others went along: somebody had acknowledged them, so their jobs hang.
local function take_out_all(stream, entries)
  local in_front, upper = 0, #entries
  local oldest = call('XPENDING', stream, 'w', '-', '+', 1)[1]
  if oldest then
    local ms, seq = parsed(oldest[1])
    while in_front < upper do
      local middle = math.ceil((in_front + upper) / 2)
      local m, s = parsed(entries[middle])
      if m < ms or m == ms and s < seq then in_front = middle else upper = middle - 1 end
    end
  else
    in_front = upper
  end
  local first, n = call('XRANGE', stream, '-', '+', 'COUNT', 1)[1], 0
  if not first or first[1] ~= entries[1] then in_front = 0 end -- a group that was made anew has passed by what is there
  if in_front > 0 then
    local ms, seq = parsed(entries[in_front])
    n = call('XTRIM', stream, 'MINID', '=', int(ms) .. '-' .. int(seq + 1))
    took[stream] = (took[stream] or 0) + math.min(n, in_front) -- an audit misses the others
  end
  if in_front < #entries then take_out(stream, unpack(entries, in_front + 1)) end
  return n > in_front
end
