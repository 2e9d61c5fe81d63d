-- A census says in a few bytes who is alive: when the last instance was added, and how many there are. From one addition
-- to the next the live ones can only become fewer, so the same census means the same instances.
-- added notes that an instance is alive that was not; no two additions have the same time.
local function added(instances)
  local before = try('HGET', instances, ' added')
  before = type(before) == 'string' and tonumber(before) or 0
  try('HSET', instances, ' added', int(math.max(before + 1, now)))
end
