-- keep records what became of ticks, and answers why it could not. Reads from ARGV for each its line: tick, space, text;
-- refused has the numbers of those whose job could not be created. What is older than the ledger's age is not read any
-- more; it goes with the key, or when there are more than count.

-- range tells whether a line is about all ticks from one to another; see package policy.
local function range(line) return line:find('^%S+ %S+ %S* %d') ~= nil end

local function keep(ledger, age, count, entries, refused)
  local foreign
  for i = 1, entries do
    local line = arg()
    local tick = line:match('^%S+')
    if refused[i] then line = tick .. ' ' .. refused_text(line:sub(#tick + 2)) end
    local before = not foreign and try('ZRANGEBYSCORE', ledger, tick, tick) or {}
    if before.err then foreign = before.err end
    if not foreign then
      call('ZADD', ledger, tick, line)
      for _, other in ipairs(before) do -- a tick at the end of a range is apart from it
        if other ~= line and range(other) == range(line) then call('ZREM', ledger, other) end
      end
    end
  end
  if entries > 0 and not foreign then
    call('ZREMRANGEBYRANK', ledger, '0', '-' .. count + 1)
    call('PEXPIRE', ledger, age)
  end
  return foreign
end
