-- KEYS: lines, end. ARGV: a line, how many are kept, a name for the order when there is none.
redis.call('HSETNX', KEYS[2], 'order', ARGV[3])
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], -tonumber(ARGV[2]), -1)
return redis.call('HINCRBY', KEYS[2], 'number', 1)
