-- schedule_drop deletes a schedule. Its versions and its ledger stay for a while; a schedule of the same name goes on with
-- its generations, so that IDs of jobs are not made twice.
-- KEYS: schedule, plan, versions, ledger, the set of all schedules, the set of its group if it has one
-- ARGV: name, its group or '' when there is none or the key is foreign, ms for which versions and ledger stay
-- Returns: 1 deleted, 0 there was none, -1 it is in another group
-- Idempotent: by name
-- Memory: works when Redis is out of memory (the first write is ZREM)
-- include: fields
local known = redis.pcall('HMGET', KEYS[1], 'g', 'gr')
if (known[2] or '') ~= ARGV[2] then return -1 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.pcall('SREM', KEYS[5], ARGV[1])
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
if whole(known[1]) > 0 then redis.pcall('HSETNX', KEYS[3], known[1], '') end
redis.pcall('PEXPIRE', KEYS[3], ARGV[3])
redis.pcall('PEXPIRE', KEYS[4], ARGV[3])
if KEYS[6] then redis.pcall('SREM', KEYS[6], ARGV[1]) end
redis.call('DEL', KEYS[1])
return 1
