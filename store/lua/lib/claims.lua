-- Claims are the keys a job holds beside its record: a unique key, a mutex, tag
-- indexes, and for a job of an instance's own queue the index of those. claims
-- reads them from KEYS and ARGV; the flags are u, m, t and o, and l for the place
-- where a job of the same ID in another segment would be noted.
local function claims()
  local flags = arg()
  if flags == '' then return nil end
  local c = {tags = {}}
  if flags:find('u', 1, true) then c.unique = key(); c.keep = tonumber(arg()) end
  if flags:find('m', 1, true) then c.mutex = key(); c.name = arg() end
  if flags:find('t', 1, true) then c.tags = keylist() end
  if flags:find('l', 1, true) then c.locator = key() end
  if flags:find('o', 1, true) then c.own = key(); c.instance = arg() end
  return c
end
