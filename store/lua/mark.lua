-- mark writes and takes back, so that WAIT, which counts up to the last write of its connection, covers all that was
-- written before: a call that found its work done already writes nothing itself.
-- KEYS: mark
-- ARGV: none
-- Returns: nothing of use
-- Idempotent: it leaves nothing
-- Memory: works when Redis is out of memory (the first write is DEL)
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '')
return redis.call('DEL', KEYS[1])
