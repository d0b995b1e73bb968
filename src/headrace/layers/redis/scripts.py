"""What is done inside Redis in one step: the queues of named channels and their readers.

Rules of this file:

- A script touches keys of one tag, all of them named in ``KEYS``.
- The time is the server's. What is in a queue begins with the time (milliseconds, 14 digits)
  after which it is forgotten, and the keys end with what is in them.
- To run a script once more, because its answer was lost, changes nothing and answers the same.
- A process that waits for a queue stands in the list of its readers, and is woken by a
  publication to that process alone. One that nobody hears is that of a dead process: it is the
  next one's turn.
"""

import hashlib
from dataclasses import dataclass

__all__ = ["GIVE_BACK", "JOIN", "LEAVE", "PUBLISH", "PUT", "TAKE", "Script", "sharded"]


@dataclass(frozen=True, slots=True)
class Script:
    """The text of a script, and the name that the server has for it."""

    text: str
    sha: str

    @classmethod
    def of(cls, *parts: str) -> "Script":
        """Return the script that consists of these parts."""
        text = "\n".join(part.strip() for part in parts)
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def sharded(script: Script) -> Script:
    """Return the same for a cluster, where publications stay in their slot."""
    return Script.of(script.text.replace("'PUBLISH'", "'SPUBLISH'"))


_TIME = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function outlive(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, ms) end
end
"""

_QUEUE = """
local queue, readers = KEYS[1], KEYS[2]
local function until_of(item) return tonumber(string.sub(item, 1, 14)) end
local function forget()
  local oldest = redis.call('LINDEX', queue, 0)
  while oldest and until_of(oldest) <= now do
    redis.call('LPOP', queue)
    oldest = redis.call('LINDEX', queue, 0)
  end
end
local function wake(prefix)
  local reader = redis.call('LPOP', readers)
  while reader and redis.call('PUBLISH', prefix .. reader, '') == 0 do
    reader = redis.call('LPOP', readers)
  end
end
"""

#: KEYS: none, or members. ARGV: channel, data. Answers how many listen; with members, a list of
#: that and the named channels in the group. A script that does not say that it writes nothing is
#: refused by a server that may write nothing, such as a primary of the past.
PUBLISH = Script.of(
    "#!lua flags=allow-oom",
    """
local reached = redis.call('PUBLISH', ARGV[1], ARGV[2])
if #KEYS == 0 or redis.call('EXISTS', KEYS[1]) == 0 then return reached end
local now = redis.call('TIME')
now = '(' .. now[1] .. '.' .. string.format('%06d', now[2])
return {reached, unpack(redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf'))}
""",
)

#: KEYS: queue, readers, put. ARGV: number, data, expiry (ms), capacity, prefix of wake,
#: how long an answer may be asked for again (ms). Answers 1, or 0 when it is full.
PUT = Script.of(
    _TIME,
    _QUEUE,
    """
if redis.call('GET', KEYS[3]) == ARGV[1] then return 1 end
forget()
if redis.call('LLEN', queue) >= tonumber(ARGV[4]) then return 0 end
redis.call('RPUSH', queue, string.format('%014.0f', now + ARGV[3]) .. ARGV[2])
outlive(queue, tonumber(ARGV[3]))
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[6])
wake(ARGV[5])
return 1
""",
)

#: KEYS: queue, readers, taken. ARGV: number, process, how long a reader may wait (ms).
#: Answers the data, or nothing; then the process stands among the readers.
TAKE = Script.of(
    _TIME,
    _QUEUE,
    """
local held = redis.call('GET', KEYS[3])
local mark = ARGV[1] .. ':'
if held and string.sub(held, 1, #mark) == mark then return string.sub(held, #mark + 15) end
forget()
local item = redis.call('LPOP', queue)
if item then
  redis.call('SET', KEYS[3], mark .. item, 'PX', math.max(until_of(item) - now, 1))
  return string.sub(item, 15)
end
redis.call('DEL', KEYS[3])
redis.call('LREM', readers, 0, ARGV[2])
redis.call('RPUSH', readers, ARGV[2])
outlive(readers, tonumber(ARGV[3]))
return false
""",
)

#: KEYS: queue, readers, taken. ARGV: number of what is to go back, or '', process, prefix of
#: wake. What was taken and has no reader goes to the front; the process reads no more.
GIVE_BACK = Script.of(
    _TIME,
    _QUEUE,
    """
local held = redis.call('GET', KEYS[3])
local mark = ARGV[1] .. ':'
if ARGV[1] ~= '' and held and string.sub(held, 1, #mark) == mark then
  local item = string.sub(held, #mark + 1)
  redis.call('LPUSH', queue, item)
  outlive(queue, math.max(until_of(item) - now, 1))
end
redis.call('DEL', KEYS[3])
redis.call('LREM', readers, 0, ARGV[2])
forget()
if redis.call('LLEN', queue) > 0 then wake(ARGV[3]) end
return 1
""",
)

#: KEYS: members. ARGV: channel, how long (ms). The score of a member is when it ends (s).
JOIN = Script.of(
    _TIME,
    """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now / 1000)
redis.call('ZADD', KEYS[1], string.format('%.3f', (now + ARGV[2]) / 1000), ARGV[1])
outlive(KEYS[1], tonumber(ARGV[2]))
return 1
""",
)

#: KEYS: members. ARGV: channel.
LEAVE = Script.of("return redis.call('ZREM', KEYS[1], ARGV[1])")
