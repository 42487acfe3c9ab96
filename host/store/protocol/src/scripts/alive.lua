-- Shared by the scripts on entries. An entry is a hash: v version, a generation of everything, s last ban it was held
-- against, g its groups with their generations, u its URI, b its bytes. It counts only while all generations it was
-- written under are still there: taking a generation away invalidates in one step, however many entries carry it, and
-- a generation that Redis evicts invalidates too, instead of bringing back what was purged.
local function glob(p, t)
  local at, from, star, begun = 1, 1, nil, nil
  while from <= #t do
    local c = string.sub(p, at, at)
    if c == '*' then
      star, begun = at, from
      at = at + 1
    elseif c ~= '' and (c == '?' or c == string.sub(t, from, from)) then
      at, from = at + 1, from + 1
    elseif star then
      begun = begun + 1
      at, from = star + 1, begun
    else
      return false
    end
  end
  while string.sub(p, at, at) == '*' do at = at + 1 end
  return at > #p
end

local function covers(ban, uri)
  local text = string.sub(ban, 2)
  if string.sub(ban, 1, 1) == 'p' then
    return string.sub(uri, 1, #text) == text
  end
  return glob(text, uri)
end

-- The version of what counts, or false; what does not is let go.
local function alive(key, meta, groups)
  local e = redis.call('HMGET', key, 'v', 'a', 's', 'g', 'u')
  if not e[1] then return false end
  local m = redis.call('HMGET', meta, 'all', 'seq')
  local good = m[1] and e[2] == m[1]
  if good then
    for gen, group in string.gmatch(e[4], '(%S+) (%S+)') do
      if redis.call('GET', groups .. group) ~= gen then
        good = false
        break
      end
    end
  end
  if good and tonumber(m[2]) > tonumber(e[3]) then
    for seq = tonumber(e[3]) + 1, tonumber(m[2]) do
      local ban = redis.call('HGET', meta, 'b' .. seq)
      if not ban or covers(ban, e[5]) then
        good = false
        break
      end
    end
    -- Held against each ban once; a Redis without memory refuses, and it is held against them again.
    if good then redis.pcall('HSET', key, 's', m[2]) end
  end
  if good then return e[1] end
  redis.call('UNLINK', key)
  return false
end

local function holds(condition, version)
  if condition == '' then return true end
  if condition == 'absent' then return not version end
  if condition == 'present' then return version and true end
  return version == condition
end
