-- unclaim gives a foreign key back.
-- KEYS: claim
-- ARGV: segment and id of the job
-- Returns: 1 given back, 0 another job holds it
-- Idempotent: by job
-- Memory: works when Redis is out of memory
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
local segment, id = held:match('^\1(%d+):%d+:(.+)$')
if segment ~= ARGV[1] or id ~= ARGV[2] then return 0 end
return redis.call('DEL', KEYS[1])
