-- claim notes, in the segment of a foreign key, which job holds it. See store/claims.go for the protocol.
-- KEYS: claim, and for the locator of an ID the record that would have this ID here
-- ARGV: segment and id of the job, until when at least it holds the key in ms or 0, a value that may be replaced or '',
--       time to live in ms
-- Returns: '' the claim is the job's now; '=' .. ms it was already, until then; '!' a job of this segment has the ID;
--       otherwise the value that is there
-- Idempotent: by job; the later end is kept
-- Memory: refused when Redis is out of memory
-- include: base
local claim, record = key(), KEYS[2]
local segment, id, held_until, replace, ttl = arg(), arg(), tonumber(arg()), arg(), arg()
if record then
  local place = call('HGET', record, 'p')
  if place and place ~= 'v' then return '!' end
end
local held, answer = call('GET', claim), ''
if held and held ~= replace then
  local s, u, i = held:match('^\1(%d+):(%d+):(.+)$')
  if s ~= segment or i ~= id then return held end
  answer = '=' .. u
  held_until = math.max(held_until, tonumber(u))
end
call('SET', claim, '\1' .. segment .. ':' .. int(held_until) .. ':' .. id, 'PX', ttl)
return answer
