-- unclaim gives a foreign key back.
-- KEYS: claim
-- ARGV: holder
-- Returns: 1 given back, 0 somebody else holds it
-- Idempotent: by holder
-- Memory: works when Redis is out of memory
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
