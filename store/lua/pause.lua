-- pause stops or resumes the reading of a queue.
-- KEYS: paused, events
-- ARGV: queue, 1 pause or 0 resume, control channel, events TTL
-- Returns: 1 changed, 0 it was so already
-- Idempotent: it sets
-- Memory: resuming works when Redis is out of memory
local changed = redis.call(ARGV[2] == '1' and 'SADD' or 'SREM', KEYS[1], ARGV[1])
if changed == 1 then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, '*', 't', ARGV[2] == '1' and 'paused' or 'resumed',
    'i', '', 'n', '', 'q', ARGV[1], 'a', '0', 'e', '')
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
redis.call('PUBLISH', ARGV[3], 'p')
return changed
