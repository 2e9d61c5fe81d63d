-- claim notes, in the segment of a foreign key, which job holds it. See store/claims.go for the protocol.
-- KEYS: claim
-- ARGV: holder, holder that may be replaced or '', time to live in ms
-- Returns: '' the claim is the holder's, otherwise who holds it
-- Idempotent: by holder
-- Memory: refused when Redis is out of memory
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] and held ~= ARGV[2] then return held end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
return ''
