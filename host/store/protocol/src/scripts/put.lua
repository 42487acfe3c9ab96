-- KEYS: entry, meta. ARGV: prefix of groups, milliseconds to live, condition, URI, bytes, groups …
local version = alive(KEYS[1], KEYS[2], ARGV[1])
if not holds(ARGV[3], version) then return { 0, '0' } end
local m = redis.call('HMGET', KEYS[2], 'all', 'seq', 'last')
local time = redis.call('TIME')
-- Time keeps a version, and a generation, from coming back after Redis lost everything. Below 2^53 until the year 2255.
local last = math.max((tonumber(m[3]) or 0) + 1, time[1] * 1000000 + time[2])
local mark = string.format('%.0f', last)
local all, seq = m[1] or mark, m[2] or '0'
redis.call('HSET', KEYS[2], 'all', all, 'seq', seq, 'last', mark)
local ttl = tonumber(ARGV[2])
local groups = {}
for at = 6, #ARGV do
  local group = ARGV[1] .. ARGV[at]
  local gen = redis.call('GET', group)
  if not gen then
    gen = mark
    redis.call('SET', group, gen, 'PX', ARGV[2])
  elseif redis.call('PTTL', group) < ttl then
    -- A generation outlives all that was written under it.
    redis.call('PEXPIRE', group, ARGV[2])
  end
  groups[#groups + 1] = gen .. ' ' .. ARGV[at]
end
redis.call('UNLINK', KEYS[1])
redis.call('HSET', KEYS[1], 'v', mark, 'a', all, 's', seq, 'g', table.concat(groups, ' '), 'u', ARGV[4], 'b', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { version and 1 or 2, mark }
