-- The generic cell rate algorithm as it is commonly kept in Redis: KEYS[1] has the theoretical arrival time; ARGV are the cells a
-- period, the period in microseconds and the cells a burst may have. Answers whether it is admitted and the microseconds to wait.
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local interval = ARGV[2] / ARGV[1]
local arrival = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now) + interval
local wait = arrival - interval * ARGV[3] - now
if wait > 0 then
    return {0, math.ceil(wait)}
end
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000) + 1)
return {1, 0}
