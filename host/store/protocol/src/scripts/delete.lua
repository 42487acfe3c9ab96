-- KEYS: entry, meta. ARGV: prefix of groups, condition.
local version = alive(KEYS[1], KEYS[2], ARGV[1])
if not holds(ARGV[2], version) then return 2 end
if not version then return 0 end
redis.call('UNLINK', KEYS[1])
return 1
