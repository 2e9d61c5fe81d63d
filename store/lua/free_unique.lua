-- free_unique frees a unique key that was left behind: it has no time to live, but its holder does not live.
-- KEYS: unique key, record of the holder
-- ARGV: holder
-- Returns: 1 the holder does not have it (any more), 0 it is held by right
-- Idempotent: by holder
-- Memory: works when Redis is out of memory
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 1 end
if redis.call('PTTL', KEYS[1]) ~= -1 then return 0 end
local place = redis.pcall('HGET', KEYS[2], 'p')
if type(place) == 'string' and place:find('^[drw%d]') then return 0 end
return redis.call('DEL', KEYS[1])
