-- Writes one of 10,000 keys, 1 KiB.
local at = 0
local body = string.rep("x", 1024)
function request()
  at = at + 1
  return wrk.format("PUT", "/kv/" .. at % 10000, { ["edgeweir-ttl"] = "60" }, body)
end
