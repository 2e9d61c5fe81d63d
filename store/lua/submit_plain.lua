-- submit_plain stores new jobs that need no more than that: they are runnable at once in one stream, and hold no keys beside
-- their records. Most jobs are such, and what this script does not look at costs them nothing.
-- KEYS: stream, then for each job: record
-- ARGV: length of what the entries have before the spec, then for each job: its entry, which is that of lib/dispatch, and
--       the spec if it is too large to be in there; cut out of an entry it would be a second string, hashed byte by byte
-- Returns: 1; every job is stored
-- Idempotent: by job ID; the submitters made them, so a job that is there was stored by an earlier run
-- Memory: refused when Redis is out of memory
-- include: spec
local call = redis.call
local stream, before = KEYS[1], tonumber(ARGV[1])
local all_new = call('EXISTS', unpack(KEYS, 2)) == 0
local at = 1
for i = 2, #KEYS do
  at = at + 1
  local record, entry, large = KEYS[i], ARGV[at], nil
  if #entry == before then
    at = at + 1
    large = ARGV[at]
  end
  if all_new or call('EXISTS', record) == 0 then
    local id = call('XADD', stream, '*', 'e', entry)
    call('HSET', record, 'p', id, unpack(born(large or entry:sub(before + 1))))
  end
end
return 1
