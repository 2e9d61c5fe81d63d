-- fields collects what one HSET and one HDEL make of a hash; '' stands for no
-- value. Only what is there is deleted.
local function fields(known)
  local f = {set = {}, unset = {}}
  function f.put(name, value)
    if value ~= '' then
      f.set[#f.set + 1] = name
      f.set[#f.set + 1] = value
    elseif known[name] then
      f.unset[#f.unset + 1] = name
    end
  end
  return f
end

-- whole reads a generation; 0 is none, or something that is not ours. Package store reads it alike.
local function whole(v)
  local digits = v and #v <= 15 and v:match('^[1-9]%d*$')
  return digits and tonumber(digits) or 0
end
