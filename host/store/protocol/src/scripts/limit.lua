-- KEYS: state. ARGV: seconds and microseconds of the time ('' and '': the clock of Redis), the cost (0 looks),
-- 'charge' to take it whatever the limits say, then for each limit
-- g, what the cost advances by (s, ns), the span (s, ns), or w, the window (s), its limit, the cost.
-- Kept are the states, then when they were written (s, ns): this alone says that the clock was set back. A state far ahead
-- does not, whoever wrote it may have a longer burst.
-- Times are pairs of seconds and nanoseconds: a number here is exact to 2^53 only. What is written is decided here; what
-- is told to the client is worked out of the same state by the caller.
local now_s, now_u = tonumber(ARGV[1]), tonumber(ARGV[2])
if not now_s then
  local time = redis.call('TIME')
  now_s, now_u = tonumber(time[1]), tonumber(time[2])
end
local now_n = now_u * 1000
local charge = ARGV[4] == 'charge'
local kept = redis.call('GET', KEYS[1])
local words = {}
for word in string.gmatch(kept or '', '%S+') do words[#words + 1] = tonumber(word) end

local function plus(s, n, by_s, by_n)
  s, n = s + by_s, n + by_n
  if n >= 1000000000 then return s + 1, n - 1000000000 end
  return s, n
end
local function over(s, n, than_s, than_n)
  return s > than_s or (s == than_s and n > than_n)
end
local function minus(s, n, by_s, by_n)
  s, n = s - by_s, n - by_n
  if n < 0 then return s - 1, n + 1000000000 end
  return s, n
end
-- count * part / per rounded up; part in seconds and microseconds, per in seconds. Every product is below 2^53.
local function faded(count, part_s, part_u, per)
  local whole = count * part_s
  local left = math.fmod(whole, per)
  local quotient = (whole - left) / per
  local rest, by = left * 1000000 + count * part_u, per * 1000000
  local over = math.fmod(rest, by)
  quotient = quotient + (rest - over) / by
  if over > 0 then quotient = quotient + 1 end
  return quotient
end

local admits, rebased, longest = true, false, 0
local at, word = 5, 1
while at <= #ARGV do
  if ARGV[at] == 'g' then at, word = at + 5, word + 2 else at, word = at + 4, word + 3 end
end
local wrote_s, wrote_n = words[word] or now_s, words[word + 1] or now_n
local back_s, back_n = 0, 0
if over(wrote_s, wrote_n, now_s + 1, now_n) then
  -- What was used counts from the new time on.
  back_s, back_n = minus(wrote_s, wrote_n, now_s, now_n)
  wrote_s, wrote_n, rebased = now_s, now_n, true
elseif over(now_s, now_n, wrote_s, wrote_n) then
  wrote_s, wrote_n = now_s, now_n
end
local charged, uncharged = {}, {}
local function both(before, after)
  uncharged[#uncharged + 1] = string.format('%.0f', before)
  charged[#charged + 1] = string.format('%.0f', after)
end
at, word = 5, 1
while at <= #ARGV do
  if ARGV[at] == 'g' then
    local adv_s, adv_n = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local far_s, far_n = plus(now_s, now_n, tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]))
    local tat_s, tat_n = minus(words[word] or now_s, words[word + 1] or now_n, back_s, back_n)
    if over(now_s, now_n, tat_s, tat_n) then tat_s, tat_n = now_s, now_n end
    local s, n = plus(tat_s, tat_n, adv_s, adv_n)
    if over(s, n, far_s, far_n) then
      if charge then s, n = far_s, far_n else admits = false end
      if over(tat_s, tat_n, s, n) then s, n = tat_s, tat_n end
    end
    both(tat_s, s)
    both(tat_n, n)
    longest = math.max(longest, far_s - now_s + 2, s - now_s + 2)
    at, word = at + 5, word + 2
  else
    local per, limit, cost = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local elapsed_s, elapsed_u = math.fmod(now_s, per), now_u
    local index = (now_s - elapsed_s) / per
    local was, previous, current = words[word] or index, words[word + 1] or 0, words[word + 2] or 0
    if was == index - 1 then
      previous, current = current, 0
    elseif was < index then
      previous, current = 0, 0
    elseif was > index then
      if (was * per - now_s) * 1000000 - now_u <= 1000000 then
        -- Another clock was in the next window already.
        index, elapsed_s, elapsed_u = was, 0, 0
      else
        previous, current, rebased = math.max(previous, current), 0, true
      end
    end
    local part_s, part_u = per - elapsed_s, 0
    if elapsed_u > 0 then part_s, part_u = part_s - 1, 1000000 - elapsed_u end
    local after = current + cost
    if charge then
      after = math.max(current, math.min(after, limit))
    elseif faded(previous, part_s, part_u, per) + after > limit then
      admits = false
    end
    both(index, index)
    both(previous, previous)
    both(current, after)
    longest = math.max(longest, 2 * per + 2)
    at, word = at + 4, word + 3
  end
end
-- A refusal costs nothing, looking neither; a clock that was set back is written all the same.
local write = rebased and uncharged or nil
if admits and (rebased or ARGV[3] ~= '0') then write = charged end
if write then
  write[#write + 1] = string.format('%.0f', wrote_s)
  write[#write + 1] = string.format('%.0f', wrote_n)
  redis.call('SET', KEYS[1], table.concat(write, ' '), 'PX', string.format('%.0f', longest * 1000))
end
return { admits and 1 or 0, now_s, now_u, kept or '' }
