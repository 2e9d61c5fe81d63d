-- How a job's spec is kept. Of larger ones than this there is no copy in the stream: the worker reads them from the record.
local inline_limit = 4096

-- A spec of up to twice as many bytes as Redis keeps small hashes compact for is in two fields of a record, j and j1.
local part_size = 64

-- joined is the spec that is in these fields.
local function joined(j, j1) return j1 and #j == part_size and j .. j1 or j end

-- born lists the fields of a spec. The list is used again.
local fields_of_spec = {'j', '', 'j1', ''}
local function born(spec)
  local f = fields_of_spec
  if #spec > part_size and #spec <= 2 * part_size then
    f[2], f[3], f[4] = spec:sub(1, part_size), 'j1', spec:sub(part_size + 1)
  else
    f[2], f[3], f[4] = spec, nil, nil
  end
  return f
end
