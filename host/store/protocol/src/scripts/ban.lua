-- KEYS: meta. ARGV: a prefix (p…) or pattern (g…) whose entries count no more, the most bans that are kept.
if not redis.call('HGET', KEYS[1], 'all') then return 0 end
local seq = redis.pcall('HINCRBY', KEYS[1], 'seq', 1)
-- Too many bans, or a Redis without memory: everything is forgotten, which is more than was asked and never less.
if type(seq) == 'table' or seq > tonumber(ARGV[2]) then
  redis.call('UNLINK', KEYS[1])
  return 1
end
redis.call('HSET', KEYS[1], 'b' .. seq, ARGV[1])
return 1
