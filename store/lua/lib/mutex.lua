-- A mutex is a hash: h = ID of the job that holds it, t = last token. While
-- jobs wait for a free mutex, its name is in the sorted set grant.

-- spent tells that the token after this one would not be larger: numbers of Lua are exact below 2^53 only. No server's
-- clock has come that far, so somebody else wrote it.
local function spent(token) return (tonumber(token or 0) or 0) >= 9007199254740991 end

-- mint gives the next token: larger than the previous one, and than any that
-- was minted before a failover lost it (server time in microseconds).
local function mint(previous)
  local token = clock[1] * 1000000 + clock[2]
  previous = tonumber(previous or 0) or 0
  if previous >= token then token = previous + 1 end
  return int(token)
end

local function first_waiter(wait, name)
  return try('ZRANGEBYLEX', wait, '[' .. name .. ':', '(' .. name .. ';', 'LIMIT', 0, 1)[1]
end

-- unsound tells why a mutex cannot be used: the type of a key, or a token, is not
-- ours. take and enqueue must not be called then.
local function unsound(mutex, wait, grant)
  local held, waiting, granting = try('HMGET', mutex, 't', 'n'), try('ZCARD', wait), try('ZCARD', grant)
  if held.err then return held.err end
  if spent(held[1]) or spent(held[2]) then
    return 'the last token or ticket of the mutex is 2^53 or more and cannot grow; delete the fields t and n of ' .. mutex
  end
  if type(waiting) == 'table' then return waiting.err end
  if type(granting) == 'table' then return granting.err end
end

-- take answers a token when id holds the mutex from now on. It answers nil when
-- another job holds it, or when others wait in front.
local function take(mutex, wait, name, id, is_first)
  local m = call('HMGET', mutex, 'h', 't')
  if m[1] and m[1] ~= id then return nil end
  if not m[1] and not is_first and first_waiter(wait, name) then return nil end
  local token = mint(m[2])
  call('HSET', mutex, 'h', id, 't', token)
  call('PERSIST', mutex)
  return token
end

-- enqueue lets a job wait for the mutex; tickets keep the order of arrival.
local function enqueue(wait, grant, mutex, record, name, route)
  local ticket = mint(call('HGET', mutex, 'n'))
  call('HSET', mutex, 'n', ticket)
  call('ZADD', wait, 0, name .. ':' .. ticket .. ':' .. route)
  call('HSET', record, 'p', 'w' .. ticket)
  if not call('HGET', mutex, 'h') then call('ZADD', grant, now, name) end
end

-- free ends id's hold. The last token is remembered for an hour, so that tokens
-- keep growing even when the server's clock is set back meanwhile.
local function free(mutex, wait, grant, name, id)
  local waiting, granting = try('ZCARD', wait), try('ZCARD', grant) -- a spent token is no reason to keep it
  if type(waiting) == 'table' or type(granting) == 'table' or try('HGET', mutex, 'h') ~= id then return false end
  call('HDEL', mutex, 'h')
  if first_waiter(wait, name) then
    call('ZADD', grant, now, name)
    return true
  end
  call('PEXPIRE', mutex, 3600000)
  return false
end
