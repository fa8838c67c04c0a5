"""What was looked up lately: for seconds as it is, for minutes while the database is away.

Signed-in people and machine clients go on through a failover where no patient is touched; a
revocation is seen everywhere within `FRESH_S`.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from deployments.data.errors import CommitUnknown, DeadlineExceeded, StoreUnavailable

FRESH_S = 10.0
STALE_S = 300.0
ENTRIES = 4096
# A lookup is one indexed row; longer than this means that the database is not there.
LOOKUP_S = 2.0
# While a lookup runs, how often it is asked whether the database is there at all.
_GLANCE_S = 0.1

T = TypeVar("T")
_AWAY = (StoreUnavailable, DeadlineExceeded, CommitUnknown)


class _Away(StoreUnavailable):
    """The database was known to be away before this was looked up."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    value: T
    loaded: float
    fresh_until: float


class Remembered(Generic[T]):
    """Values by key, at most `entries`; one lookup at a time for each. For one event loop."""

    def __init__(
        self,
        *,
        fresh_s: float = FRESH_S,
        stale_s: float = STALE_S,
        entries: int = ENTRIES,
        is_away: Callable[[], bool] = lambda: False,
        must_know: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`is_away`: whether the database is known to be. Then what is known serves at once, and
        what is not is refused at once, unless it `must_know`: then its lookup is waited for.
        """
        self._fresh_s, self._stale_s, self._most, self._clock = fresh_s, stale_s, entries, clock
        self._is_away, self._must_know = is_away, must_know
        self._entries: OrderedDict[str, _Entry[T]] = OrderedDict()
        self._running: dict[str, asyncio.Task[T]] = {}
        self._changes = 0

    async def get(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """The value, looked up unless it is fresh. Raises what `load` raises, if nothing is known."""
        entry = self._entries.get(key)
        if entry is not None and self._clock() < entry.fresh_until:
            self._entries.move_to_end(key)
            return entry.value
        try:
            return await self._looked_up(key, load)
        except _AWAY as error:
            if (known := self._known(key)) is None:
                raise
            # Nobody else waits for the database that has just been found away.
            if not isinstance(error, _Away):
                known.fresh_until = self._clock() + self._fresh_s
            return known.value

    def learn(self, key: str, value: T) -> None:
        """Know a value that was looked up among others: it serves while the database is away alone."""
        now = self._clock()
        known = self._entries.get(key)
        self._entries[key] = _Entry(value, now, now if known is None else known.fresh_until)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def forget(self, key: str) -> None:
        """Look it up again the next time."""
        self._changes += 1
        self._entries.pop(key, None)

    def doubt(self) -> None:
        """Look everything up again the next time; what is known serves while the database is away."""
        self._changes += 1
        now = self._clock()
        for entry in self._entries.values():
            entry.fresh_until = min(entry.fresh_until, now)

    def _known(self, key: str) -> _Entry[T] | None:
        """What may serve while the database is away."""
        entry = self._entries.get(key)
        known = entry is not None and self._clock() < entry.loaded + self._stale_s
        return entry if known else None

    async def _looked_up(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """What the lookup finds. Raises `_Away` instead of waiting where that would help nobody."""
        needed = self._must_know and self._known(key) is None
        if not needed and self._is_away() and self._running:
            raise _Away("the database is away, and somebody is looking already")
        task = self._lookup(key, load)
        while not needed and not task.done():
            if self._is_away():
                raise _Away("the database is away")
            await asyncio.wait({task}, timeout=_GLANCE_S)
        # One who gives up does not end the lookup of the others.
        return await asyncio.shield(task)

    def _lookup(self, key: str, load: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """The one lookup of this key that runs, for whoever needs it."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(self._load(key, load))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return task

    async def _load(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        changes = self._changes
        value = await load()
        now = self._clock()
        # Something changed while this was looked up, perhaps this: not to be taken for fresh.
        fresh_s = self._fresh_s if changes == self._changes else 0.0
        self._entries[key] = _Entry(value, now, now + fresh_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)
        return value

    def _ended(self, key: str, task: asyncio.Task[T]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            # Read here, so that a failure that nobody waits for any more is not reported as lost.
            task.exception()
