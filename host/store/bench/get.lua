-- Reads one of the 10,000 keys that put.lua wrote.
local at = 0
function request()
  at = at + 1
  return wrk.format("GET", "/kv/" .. at % 10000)
end
