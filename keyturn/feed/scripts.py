"""The Lua scripts of the feed: one for each step that must happen whole or not at all."""

# Positions and moments are compared as strings: Lua numbers are doubles, and 2^53 + 1 equals 2^53 there.
# Where another type stands in the place of a head, the lane stands nowhere: its publisher has to mend it.
_HEAD = """
local position = redis.pcall('HGET', KEYS[1], 'position')
if type(position) == 'table' and not tostring(position.err):find('WRONGTYPE') then return position end
if position ~= ARGV[1] then return 0 end
"""
APPEND = (
    _HEAD
    + """
if KEYS[3] then redis.call('HGET', KEYS[3], '') end -- Fails here, with nothing done, if it is no hash.
local added = redis.pcall('XADD', KEYS[2], ARGV[2], 'event', ARGV[3])
if type(added) == 'table' and added.err then
  if added.err:find('equal or smaller') or added.err:find('WRONGTYPE') then return 2 end -- Not what we have written.
  return added
end
redis.call('HSET', KEYS[1], 'position', ARGV[4], 'statement', ARGV[3], 'at', ARGV[5])
local erased = tonumber(ARGV[7])
for i = 8 + erased, #ARGV, 2 do redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
for i = 8, 7 + erased do redis.call('HDEL', KEYS[3], ARGV[i]) end
redis.call('PUBLISH', ARGV[6], ARGV[3])
return 1
"""
)
BEAT = (
    _HEAD
    + """
local held = redis.call('HMGET', KEYS[1], 'at', 'beater'); local at = held[1] or ''
local from = ARGV[2] -- While another replica of the publisher beats, only its silence lets us.
if held[2] and held[2] ~= ARGV[6] then from = ARGV[7] end
if #at == #ARGV[2] and at >= from and at < ARGV[5] then return 0 end
redis.call('HSET', KEYS[1], 'statement', ARGV[3], 'at', ARGV[2], 'beater', ARGV[6])
redis.call('PUBLISH', ARGV[4], ARGV[3])
return 1
"""
)
CONFIRM = (
    _HEAD
    + """
redis.call('HINCRBY', KEYS[1], 'confirmed', 1)
return 1
"""
)
RESEAL = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then redis.call('HDEL', KEYS[1], ARGV[1]) else redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) end
return 1
"""
# A snapshot is stored only with all of its chunks, whose digests end the arguments; `stored` counts each time.
# Keys: head, snapshot, chunks, stream of its epoch. Where another type stands, it is as good as nothing.
DONE, MISSING = 1, -1
_SNAPSHOT = """
local function field(key, name)
  local held = redis.pcall('HGET', key, name)
  if type(held) ~= 'table' then return held or '' end
  redis.call('DEL', key)
  return ''
end
local function lacks(from)
  for i = from, #ARGV do if redis.call('HEXISTS', KEYS[3], ARGV[i]) == 0 then return true end end
  return false
end
local function put(position, snapshot, from)
  local previous, stored = field(KEYS[2], 'chunks'), field(KEYS[2], 'stored')
  redis.call('DEL', KEYS[2]) -- Whatever else somebody may have put there.
  redis.call('HSET', KEYS[2], 'position', position, 'snapshot', snapshot, 'previous', previous,
    'chunks', table.concat(ARGV, ' ', from), 'stored', (tonumber(stored) or 0) + 1)
end
"""
OPEN = (
    _SNAPSHOT
    + """
if field(KEYS[1], 'position') ~= ARGV[1] then return 0 end
if lacks(6) then return -1 end
redis.call('DEL', KEYS[4]) -- Whatever somebody may have put there in advance.
put(ARGV[2], ARGV[3], 6)
redis.call('HSET', KEYS[1], 'position', ARGV[2], 'statement', ARGV[3], 'at', ARGV[4])
redis.call('PUBLISH', ARGV[5], ARGV[3])
return 1
"""
)
KEEP = (
    _SNAPSHOT
    + """
if redis.call('HGET', KEYS[2], 'position') ~= ARGV[1] then return 0 end
if lacks(4) then return -1 end
put(ARGV[2], ARGV[3], 4)
return 1
"""
)
MEND = (
    _SNAPSHOT
    + """
if field(KEYS[1], 'position') ~= ARGV[1] then return 0 end
if lacks(3) then return -1 end
put(ARGV[1], ARGV[2], 3)
return 1
"""
)
SWEEP = """
if (redis.call('HGET', KEYS[1], 'stored') or '') ~= ARGV[1] then return 0 end
for i = 2, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return 1
"""
KEEP_TRUST = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
