-- await asks that an inbox is told when a job is final.
-- KEYS: record, awaited
-- ARGV: id, inbox
-- Returns: the job's place, or '' when there is no such job
-- Idempotent: an inbox is noted once
-- Memory: refused when Redis is out of memory
-- include: watch
return watch(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
