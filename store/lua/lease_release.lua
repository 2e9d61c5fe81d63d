-- lease_release gives a lease back and tells those who wait for it.
-- KEYS: lease
-- ARGV: owner, token, channel of the lease
-- Returns: 1 released, 0 it was not held any more
-- Idempotent: by owner and token
-- Memory: works when Redis is out of memory
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. ARGV[2] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[3], '')
return 1
