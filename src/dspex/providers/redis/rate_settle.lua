-- Corrects charges: what was used beyond the reservation counts from now, what was not goes back to its second.
-- KEYS: counters. ARGV: the window's seconds, then the charge's second and the difference for each key.
local now = tonumber(redis.call('TIME')[1])
local window = tonumber(ARGV[1])

for index, key in ipairs(KEYS) do
  local second, difference = ARGV[2 * index], tonumber(ARGV[2 * index + 1])
  if difference > 0 then
    local added = redis.pcall('HINCRBY', key, now, ARGV[2 * index + 1])
    if type(added) == 'number' then
      redis.call('EXPIRE', key, window + 2)
    end
  else
    local there = redis.pcall('HGET', key, second)
    local count = type(there) == 'string' and tonumber(there)
    if count then
      if count + difference > 0 then
        redis.call('HINCRBY', key, second, ARGV[2 * index + 1])
      else
        redis.call('HDEL', key, second)
      end
    end
  end
end
return 0
