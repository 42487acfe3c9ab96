-- Decides for one of 1,000 clients: 100 a minute and 20 a second.
local function number(value, bytes)
  local out = {}
  for at = 1, bytes do
    out[at] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end
local function gcra(interval, tolerance)
  return string.char(1) .. number(interval, 8) .. number(tolerance, 8)
end
local limits = string.char(2) .. gcra(600000000, 59400000000) .. gcra(50000000, 950000000)
local at = 0
function request()
  at = at + 1
  local key = "client" .. at % 1000
  return wrk.format("POST", "/limit", nil, string.char(1) .. number(1, 2) .. number(#key, 2) .. key .. number(1, 4) .. limits)
end
