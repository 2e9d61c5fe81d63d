-- submit_plain stores new jobs that need no more than that: they are runnable at once in one stream, hold no keys beside
-- their records, and fit into their entries. Most jobs are such, and what this script does not look at costs them nothing.
-- KEYS: stream, then for each job: record
-- ARGV: length of what the entries have before the spec, then for each job: its entry, which is that of lib/dispatch
-- Returns: 1; every job is stored
-- Idempotent: by job ID; the submitters made them, so a job that is there was stored by an earlier run
-- Memory: refused when Redis is out of memory
-- include: spec
local call = redis.call
local stream, before = KEYS[1], tonumber(ARGV[1])
local all_new = call('EXISTS', unpack(KEYS, 2)) == 0
for i = 2, #KEYS do
  local record, entry = KEYS[i], ARGV[i]
  if all_new or call('EXISTS', record) == 0 then
    call('HSET', record, 'p', call('XADD', stream, '*', 'e', entry), unpack(born(entry:sub(before + 1))))
  end
end
return 1
