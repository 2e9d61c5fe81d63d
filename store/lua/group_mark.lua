-- group_mark notes something about a group of schedules.
-- KEYS: marks
-- ARGV: group, mark or '' for none
-- Returns: 1
-- Idempotent: by the mark
-- Memory: refused when Redis is out of memory, except without a mark
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return 1
