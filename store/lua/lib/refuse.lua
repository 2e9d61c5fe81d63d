-- refused_text is what the ledger says of a tick whose job could not be created, instead of that it was fired: skipped
-- and refused, as package policy writes it.
local function refused_text(text) return 'se' .. text:sub(2) end
