-- Takes tokens from buckets as `Bucket.lease` of bucket.py does, by Redis' clock, all in one step.
-- KEYS: the buckets. ARGV: the length of a lease in microseconds, that of a pause in seconds; then for each bucket its
-- rate a second, its burst, and how many tokens are needed, wanted ahead and returned. One that is not there is full.
-- Returns for each bucket: tokens needed, tokens ahead, microseconds until those lapse, and until there is a token.
local lease_us, pause_s = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local answers = {}

local function filled(level, rate, burst, held, elapsed_us)
  return math.max(0, math.min(burst - held, level + math.max(0, elapsed_us) / 1000000 * rate))
end

for i, key in ipairs(KEYS) do
  local at = 5 * i - 2
  local rate, burst = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local need, ahead, returned = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local stored = redis.call('HMGET', key, 'level', 'at_us', 'held')
  local level, at_us, held = tonumber(stored[1]) or burst, tonumber(stored[2]) or now_us, tonumber(stored[3]) or 0

  local lapse_us = at_us - at_us % lease_us + lease_us
  if held > 0 and now_us >= lapse_us then
    level = filled(level, rate, burst, held, lapse_us - at_us)
    held, at_us = 0, lapse_us
  end
  level = filled(level, rate, burst, held, now_us - at_us)
  level = math.max(0, math.min(burst - held, level + returned))

  local needed = math.min(need, math.floor(level))
  level = level - needed
  local most = math.max(math.floor(level / 2), math.min(math.floor(level), math.floor(rate * pause_s)))
  ahead = math.min(ahead, math.max(0, math.min(most, math.floor(burst / 2) - held)))
  level = level - ahead
  held = held + ahead

  local number = '%.17g'
  redis.call('HSET', key, 'level', number:format(level), 'at_us', number:format(now_us), 'held', held)
  -- It is full by then, and nobody holds any of its tokens: the same as one that is not there.
  redis.call('PEXPIRE', key, math.ceil(burst / rate * 1000) + 1000)
  local wait_us = 0
  if level < 1 then
    wait_us = math.ceil((1 - level) / rate * 1000000) + 1
  end
  for _, value in ipairs({needed, ahead, lease_us - now_us % lease_us, wait_us}) do
    answers[#answers + 1] = value
  end
end
return answers
