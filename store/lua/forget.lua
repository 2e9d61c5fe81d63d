-- forget drops the oldest entries of a history and the records they stand for.
-- KEYS: history, then for each entry the record of its job
-- ARGV: letter of the history's state, ID below which entries are dropped, then for each entry its ID
-- Returns: how many records were deleted
-- Idempotent: by entry; a record that meanwhile left this entry behind stays
-- Memory: works when Redis is out of memory
local there, count = {}, 0
for i = 2, #KEYS do
  there[i] = redis.pcall('HGET', KEYS[i], 'p') == ARGV[1] .. ARGV[i + 1]
  if there[i] then count = count + 1 end
end
if count > 0 and count == #KEYS - 1 then
  redis.call('DEL', unpack(KEYS, 2, #KEYS))
else
  for i = 2, #KEYS do
    if there[i] then redis.call('DEL', KEYS[i]) end
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', '=', ARGV[2])
return count
