-- Shared by every script: the clock, and cursors over KEYS and ARGV.
local call, try = redis.call, redis.pcall
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

-- int prints a number without an exponent. Redis prints the numbers it is given, too, with more digits and for as long as
-- a command takes; so what is given often is text.
local function int(n) return string.format('%.0f', n) end
local now_text = int(now)

local ki, ai = 0, 0
local function key() ki = ki + 1; return KEYS[ki] end
local function arg() ai = ai + 1; return ARGV[ai] end

-- list reads a counted list of keys; the count is the next argument.
local function keylist()
  local list = {}
  for i = 1, tonumber(arg()) do list[i] = key() end
  return list
end
