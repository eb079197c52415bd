-- Runs the commands that the handler has queued, writes the rows and gives the lock back, all at once.
-- KEYS: the key's hash, the sorted sets of pending and of undelivered work.
-- ARGV: holder, keep_ms, number of commands, for each the number of its words and these; then for each row its kind, the
-- row, the index of its sorted set in KEYS (0: none), its score and its member there.
-- Returns 0, and has done nothing, if the lock is lost. Done twice by one holder, it is done once.
local hash, holder = KEYS[1], ARGV[1]
local seen = redis.call('HMGET', hash, 'holder', 'last')
if seen[2] == holder then
    return 1
elseif seen[1] ~= holder then
    return 0
end
local at = 4
for _ = 1, tonumber(ARGV[3]) do
    local words = tonumber(ARGV[at])
    redis.call(unpack(ARGV, at + 1, at + words))
    at = at + words + 1
end
local open = false
for i = at, #ARGV, 5 do
    local set, member = tonumber(ARGV[i + 2]), ARGV[i + 4]
    redis.call('HSET', hash, ARGV[i], ARGV[i + 1])
    redis.call('ZREM', KEYS[2], member)
    redis.call('ZREM', KEYS[3], member)
    if set > 0 then
        redis.call('ZADD', KEYS[set], ARGV[i + 3], member)
        open = true
    end
end
redis.call('HSET', hash, 'last', holder)
redis.call('HDEL', hash, 'holder', 'until', 'before', 'begun')
if open then
    redis.call('PERSIST', hash)
else
    redis.call('PEXPIRE', hash, ARGV[2])
end
return 1
