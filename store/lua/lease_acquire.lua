-- lease_acquire takes a named lease when it is free, or renews it for the same owner.
-- KEYS: lease, last token
-- ARGV: owner, time to live in ms
-- Returns: token, 0; or '' and the ms after which the holder's lease lapses, or -2 when no larger token can be made
-- Idempotent: by owner, which keeps its token
-- Memory: refused when Redis is out of memory
-- include: base mutex
local lease, last = key(), key()
local owner, ttl = arg(), arg()
local held = call('GET', lease)
if held then
  local token = held:match('^' .. owner .. ' (%d+)$')
  if not token then return {'', call('PTTL', lease)} end
  call('PEXPIRE', lease, ttl)
  return {token, 0}
end
local previous = call('GET', last)
if spent(previous) then return {'', -2} end
local token = mint(previous)
call('SET', lease, owner .. ' ' .. token, 'NX', 'PX', ttl)
call('SET', last, token, 'PX', 86400000)
return {token, 0}
