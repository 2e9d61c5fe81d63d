-- lease_renew extends a lease its owner still holds.
-- KEYS: lease
-- ARGV: owner, token, time to live in ms
-- Returns: 1 extended, 0 lost
-- Idempotent: it only extends
-- Memory: works when Redis is out of memory
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. ARGV[2] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[3])
