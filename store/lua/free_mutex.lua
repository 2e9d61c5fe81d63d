-- free_mutex frees a mutex that was left behind: its holder is neither runnable nor running.
-- KEYS: mutex, record of the holder, wait, grant
-- ARGV: mutex name, holder
-- Returns: 1 freed, 0 it is held by right
-- Idempotent: by holder
-- Memory: works when Redis is out of memory (the first write is HDEL)
-- include: base mutex
local place = try('HGET', KEYS[2], 'p')
if type(place) == 'string' and place:find('^%d') then return 0 end
if call('HGET', KEYS[1], 'h') ~= ARGV[2] then return 0 end
free(KEYS[1], KEYS[3], KEYS[4], ARGV[1], ARGV[2])
return 1
