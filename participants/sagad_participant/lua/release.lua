-- Gives a lock back and keeps nothing of the call, but for the fact that it has begun where `undone` is '0'.
-- KEYS: the key's hash. ARGV: holder, undone.
local hash = KEYS[1]
local seen = redis.call('HMGET', hash, 'holder', 'before')
if seen[1] ~= ARGV[1] then
    return 0
end
if ARGV[2] == '1' then
    if seen[2] == '' then
        redis.call('HDEL', hash, 'begun')
    else
        redis.call('HSET', hash, 'begun', seen[2])
    end
end
redis.call('HDEL', hash, 'holder', 'until', 'before')
return 1
