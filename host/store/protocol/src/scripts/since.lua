-- KEYS: lines, end. ARGV: order and number of a mark, lines at once, a name for the order when there is none.
-- Returns the order, the number after the lines, whether some are lost, the lines.
redis.call('HSETNX', KEYS[2], 'order', ARGV[4])
local order = redis.call('HGET', KEYS[2], 'order')
local number = tonumber(redis.call('HGET', KEYS[2], 'number') or '0')
local kept = redis.call('LLEN', KEYS[1])
local missing = number - tonumber(ARGV[2])
if order ~= ARGV[1] or missing < 0 or missing > kept then return { order, number, 1, {} } end
local from = kept - missing
local lines = redis.call('LRANGE', KEYS[1], from, from + tonumber(ARGV[3]) - 1)
return { order, number - missing + #lines, 0, lines }
