-- KEYS: entry, meta. ARGV: prefix of groups.
local version = alive(KEYS[1], KEYS[2], ARGV[1])
if not version then return false end
return { version, redis.call('PTTL', KEYS[1]), redis.call('HGET', KEYS[1], 'b') }
