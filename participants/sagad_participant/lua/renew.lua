-- Prolongs a lock. KEYS: the key's hash. ARGV: holder, lease_ms. Returns 0 if another call has it, or nobody.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then
    return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'until', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2])
return 1
