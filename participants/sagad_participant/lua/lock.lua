-- Locks a key for one call, and reads what is known of it.
-- KEYS: the key's hash. ARGV: holder, lease_ms, keep_ms, the fencing token if an action's handler may run, else ''.
-- Returns {ms until the other call's lease ends}, or {0, token of an unfinished action or '', row 1 or '', row 2 or ''}.
local hash, holder, token = KEYS[1], ARGV[1], ARGV[4]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local seen = redis.call('HMGET', hash, 'holder', 'until', 'begun', 'before', '1', '2')
local before = seen[3] or ''
if seen[1] == holder then
    before = seen[4] -- the same request again: its answer was lost
elseif seen[1] and tonumber(seen[2]) > now then
    return {tonumber(seen[2]) - now}
end
redis.call('HSET', hash, 'holder', holder, 'until', now + ARGV[2], 'before', before)
if token ~= '' and not seen[5] then
    redis.call('HSET', hash, 'begun', token) -- outlives a holder that dies
end
if not (seen[5] or seen[6]) then
    redis.call('PEXPIRE', hash, ARGV[3])
end
return {0, before, seen[5] or '', seen[6] or ''}
