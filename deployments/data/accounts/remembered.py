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

T = TypeVar("T")
_AWAY = (StoreUnavailable, DeadlineExceeded, CommitUnknown)


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fresh_s, self._stale_s, self._most, self._clock = fresh_s, stale_s, entries, clock
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
            value = await self._looked_up(key, load)
        except _AWAY:
            entry = self._entries.get(key)
            if entry is None or self._clock() >= entry.loaded + self._stale_s:
                raise
            # Nobody else waits for the database that is away.
            entry.fresh_until = self._clock() + self._fresh_s
            return entry.value
        return value

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

    async def _looked_up(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        task = self._running.get(key)
        if task is None:
            task = asyncio.ensure_future(self._load(key, load))
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # One who gives up does not end the lookup of the others.
        return await asyncio.shield(task)

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
