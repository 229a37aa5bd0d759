"""Counts in a Redis, which several nodes and a restart share.

One script counts in all windows of a message at once, on the server: all or none, exactly, however
many nodes ask at the same time, in one round trip.  A window is a list of times, the latest first,
as the package ``limits`` keeps it, whose connection this is.  The times are those of the Redis, so
its clock is the only one that counts.  A Redis cluster cannot be used, for the keys of one script
would have to be on one node of it.

Calls block, for as long as the time limit at each step, so they are made in a thread.  They raise
whatever the client of Redis raises, and ``ValueError`` for an answer that cannot be one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limits.storage import RedisStorage

from submitd.counters.windows import Room, Taken, Want, Window

SCHEMES = ("redis://", "rediss://", "redis+unix://")

# The time is that of the Redis, whatever the clocks of nodes say: what is given back is how long
# ago something was counted.  Its own may be set back, too, or be another one's after a failover:
# what is farther ahead than the window is then forgotten.
_CLOCK = b"""
local time = redis.call('time')
local now = time[1] + time[2] / 1000000
"""
_TIMES = b"""
local function isAhead(key, seconds)
  local latest = redis.call('lindex', key, 0)
  return latest and tonumber(latest) > now + seconds
end
local function ago(entry)
  return entry and string.format('%.6f', now - entry) or ''
end
"""

# ARGV: whether all or none; then for each key: amount, seconds, cost, mark.
# Gives {the want without room or 0, how long ago the entry in its way was, the marked ones ...}.
_TAKE = b"""
local together = ARGV[1] == '1'
local free, shortage, blocking = {}, 0, ''
for i, key in ipairs(KEYS) do
  local amount, seconds = tonumber(ARGV[i * 4 - 2]), tonumber(ARGV[i * 4 - 1])
  local cost = tonumber(ARGV[i * 4])
  if isAhead(key, seconds) then redis.call('del', key) end
  local entry = redis.call('lindex', key, math.max(amount - cost, 0))
  if cost > amount or (entry and tonumber(entry) > now - seconds) then
    if shortage == 0 then shortage, blocking = i, ago(entry) end
    if together then return {shortage, blocking} end
  else
    free[#free + 1] = i
  end
end
local result, entry = {shortage, blocking}, string.format('%.6f', now)
for _, i in ipairs(free) do
  local key = KEYS[i]
  local amount, seconds = tonumber(ARGV[i * 4 - 2]), tonumber(ARGV[i * 4 - 1])
  local cost, mark = tonumber(ARGV[i * 4]), tonumber(ARGV[i * 4 + 1])
  local function within(count)
    local entry = redis.call('lindex', key, count - 1)
    return entry and tonumber(entry) > now - seconds
  end
  if mark > 0 and not within(mark) and (cost >= mark or within(mark - cost)) then
    result[#result + 1] = i
  end
  local entries = {}
  for n = 1, cost do entries[n] = entry end
  for n = 1, cost, 5000 do
    redis.call('lpush', key, unpack(entries, n, math.min(n + 4999, cost)))
  end
  redis.call('ltrim', key, 0, amount - 1)
  redis.call('expire', key, seconds)
end
return result
"""

# ARGV: for each key: amount, seconds.  Gives the count of each, and how long ago the oldest was.
# The last of the keys is never there.  To push to its list changes nothing, and fails as counting
# would, because the memory is full or the Redis a replica: else it would be away at one question
# and back at the next.
_ROOMS = b"""
redis.call('lpushx', table.remove(KEYS), '')
local result = {}
for i, key in ipairs(KEYS) do
  local low, high = 0, math.min(redis.call('llen', key), tonumber(ARGV[i * 2 - 1]))
  local seconds = tonumber(ARGV[i * 2])
  local after = now - seconds
  if isAhead(key, seconds) then high = 0 end
  while low < high do
    local middle = math.floor((low + high) / 2)
    if tonumber(redis.call('lindex', key, middle)) > after then
      low = middle + 1
    else
      high = middle
    end
  end
  result[#result + 1] = low
  result[#result + 1] = ago(low > 0 and redis.call('lindex', key, low - 1))
end
return result
"""


class Redis(RedisStorage):  # type: ignore[misc, unused-ignore]
    """A storage in a Redis.

    :param url: ``redis://HOST:PORT/DB``, ``rediss://...`` for TLS, or ``redis+unix:///SOCKET``;
        with ``USER:PASSWORD@`` where it asks for them.
    :param timeout: seconds for connecting, and for each answer.
    :raise ValueError: for any other URL, for an option that nobody knows, and when the package
        ``redis`` is not installed.
    """

    def __init__(self, url: str, timeout: float) -> None:
        if not url.startswith(SCHEMES):
            raise ValueError(f"must begin with {', '.join(SCHEMES)}")
        options: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
        options.update(_noRetry())
        super().__init__(url, key_prefix="submitd", **options)
        client: Any = self.get_connection()
        pool = client.connection_pool
        try:
            # Nothing is connected yet, but an option of the URL that nobody knows is found now.
            pool.connection_class(**pool.connection_kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(f"the client of Redis does not take it: {error}") from None

    def initialize_storage(self, _uri: str) -> None:
        """Make the scripts known; nothing is connected yet."""
        super().initialize_storage(_uri)
        self._take = self.get_connection().register_script(_CLOCK + _TIMES + _TAKE)
        self._rooms = self.get_connection().register_script(_CLOCK + _TIMES + _ROOMS)

    def take(self, wants: Sequence[Want], now: float, together: bool) -> Taken:
        """See :class:`submitd.counters.windows.Storage`."""
        arguments: list[Any] = [int(together)]
        for _, window, cost, mark in wants:
            arguments += [window.amount, window.seconds, cost, mark]
        shortage, blocking, *marked = self._take(self._keys(wants), arguments)
        if not shortage:
            return Taken(None, 0.0, _indexes(marked, wants))
        [at] = _indexes([shortage], wants)
        until = now + wants[at].window.seconds - float(blocking) if blocking else now
        return Taken(at, until, _indexes(marked, wants))

    def rooms(self, wants: Sequence[Want], now: float) -> list[Room]:
        """See :class:`submitd.counters.windows.Storage`."""
        arguments: list[Any] = []
        for want in wants:
            arguments += [want.window.amount, want.window.seconds]
        answer = self._rooms([*self._keys(wants), self.prefixed_key("")], arguments)
        if len(answer) != 2 * len(wants):
            raise ValueError("another number of answers than of questions")
        return [
            _room(want.window, used, ago, now)
            for want, used, ago in zip(wants, answer[::2], answer[1::2], strict=True)
        ]

    def _keys(self, wants: Sequence[Want]) -> list[str]:
        return [self.prefixed_key(want.key) for want in wants]


def _room(window: Window, used: Any, ago: Any, now: float) -> Room:
    if type(used) is not int or not 0 <= used <= window.amount:
        raise ValueError("a count that cannot be")
    return Room(window.amount - used, used, now + window.seconds - float(ago) if used else now)


def _indexes(numbers: Sequence[Any], wants: Sequence[Want]) -> tuple[int, ...]:
    """Lua counts from 1."""
    if any(type(number) is not int or not 0 < number <= len(wants) for number in numbers):
        raise ValueError("an answer about something that was not asked")
    return tuple(number - 1 for number in numbers)


def _noRetry() -> dict[str, Any]:
    """The client would try again several times, each with its own time limit."""
    try:
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ValueError('needs the package "redis": the extra "redis" of submitd') from None
    return {"retry": Retry(NoBackoff(), 0)}
