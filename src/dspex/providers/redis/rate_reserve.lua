-- Charges every counter, or none when one has no room. The rules are those of gateway/rate_window.py.
-- KEYS: counters, hashes of second -> amount. ARGV: the window's seconds, then limit and amount for each key.
-- Answers {0, second of the charge, 0}, or {number of the key that waits longest, its used amount, microseconds}.
local time = redis.call('TIME')
local now, micros = tonumber(time[1]), tonumber(time[2])
local window = tonumber(ARGV[1])
local refused, refused_used, longest = 0, 0, 0

for index, key in ipairs(KEYS) do
  local limit, amount = tonumber(ARGV[2 * index]), tonumber(ARGV[2 * index + 1])
  local stored = redis.pcall('HGETALL', key)
  if stored.err then
    -- Whatever lies there is not ours.
    redis.call('DEL', key)
    stored = {}
  end
  local used, late, buckets = 0, 0, {}
  for field = 1, #stored, 2 do
    local second, count = tonumber(stored[field]), tonumber(stored[field + 1])
    local ours = second and count and second % 1 == 0 and count % 1 == 0 and count >= 0 and count < 1e15
    if not ours or second < now - window then
      redis.call('HDEL', key, stored[field])
    elseif second > now then
      -- The clock went back.
      redis.call('HDEL', key, stored[field])
      late = late + count
    else
      used = used + count
      buckets[#buckets + 1] = {second, count}
    end
  end
  if late > 0 then
    local present = tonumber(redis.call('HGET', key, now) or 0) or 0
    redis.call('HSET', key, now, string.format('%.0f', present + late))
    redis.call('EXPIRE', key, window + 2)
    used = used + late
    buckets[#buckets + 1] = {now, late}
  end
  local over = used + amount - limit
  if over > 0 then
    table.sort(buckets, function(one, other) return one[1] < other[1] end)
    local wait = 0
    for _, bucket in ipairs(buckets) do
      over = over - bucket[2]
      if over <= 0 then
        wait = (bucket[1] + window + 1 - now) * 1000000 - micros
        break
      end
    end
    if wait > longest then
      refused, refused_used, longest = index, used, wait
    end
  end
end

if refused > 0 then
  return {refused, refused_used, longest}
end
for index, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, now, ARGV[2 * index + 1])
  redis.call('EXPIRE', key, window + 2)
end
return {0, now, 0}
