"""The Lua scripts of the feed: one for each step that must happen whole or not at all."""

# Positions and moments are compared as strings: Lua numbers are doubles, and 2^53 + 1 equals 2^53 there.
APPEND = """
if redis.call('HGET', KEYS[1], 'position') ~= ARGV[1] then return 0 end
if KEYS[3] then redis.call('HGET', KEYS[3], '') end -- Fails here, with nothing done, if it is no hash.
redis.call('XADD', KEYS[2], ARGV[2], 'event', ARGV[3])
redis.call('HSET', KEYS[1], 'position', ARGV[4], 'statement', ARGV[3], 'at', ARGV[5])
local erased = tonumber(ARGV[7])
for i = 8 + erased, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
for i = 8, 7 + erased do redis.call('HDEL', KEYS[3], ARGV[i]) end
redis.call('PUBLISH', ARGV[6], ARGV[3])
return 1
"""
BEAT = """
local held = redis.call('HMGET', KEYS[1], 'position', 'at'); local at = held[2] or ''
if held[1] ~= ARGV[1] or (#at == #ARGV[2] and at >= ARGV[2] and at < ARGV[5]) then return 0 end
redis.call('HSET', KEYS[1], 'statement', ARGV[3], 'at', ARGV[2])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
"""
CONFIRM = """
if redis.call('HGET', KEYS[1], 'position') ~= ARGV[1] then return 0 end
redis.call('HINCRBY', KEYS[1], 'confirmed', 1)
return 1
"""
RESEAL = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
OPEN = """
if (redis.call('HGET', KEYS[1], 'position') or '') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'position', ARGV[2], 'statement', ARGV[3], 'at', ARGV[4])
redis.call('HSET', KEYS[2], 'position', ARGV[2], 'snapshot', ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[3])
return 1
"""
KEEP = """
if redis.call('HGET', KEYS[1], 'position') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'position', ARGV[2], 'snapshot', ARGV[3])
return 1
"""
MEND = """
if redis.call('HGET', KEYS[1], 'position') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[2], 'position', ARGV[1], 'snapshot', ARGV[2])
return 1
"""
