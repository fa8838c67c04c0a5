"""A database's connections: so many at most, handed out in the order of asking, back by themselves.

While the server is away one task alone tries it, twice a second and more, and everybody waits in the
same queue: a failover makes no stampede, and is over for all of them within a second of its end.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from deployments.data.cutting import cut_after
from deployments.data.errors import StoreUnavailable

WAITING_PER_CONNECTION = 32
CONNECT_TIMEOUT_S = 2
TRY_EVERY_S = 0.4
_LIFETIME_S = 3600.0
_RETRY_AFTER_S = 1.0
# A standby, or a primary that was demoted a moment ago: nothing could be written or put on record.
_READS_ONLY = b"SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"


class Connection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection that counts the server's warnings: one during COMMIT is not a success."""

    warnings = 0
    outlived = 0.0

    def watch_warnings(self) -> None:
        """Begin to count."""
        self.add_notice_handler(self._count)

    def _count(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self.warnings += 1


@dataclass(slots=True, eq=False)
class _Waiter:
    arrived: float
    given: asyncio.Future[Connection]


class Connections:
    """At most `most` connections to one server, for one event loop."""

    def __init__(self, dsn: str, *, most: int, name: str, away_wait_s: float) -> None:
        """While the server is known to be away nobody waits longer than `away_wait_s` seconds."""
        self._dsn, self._most, self._name = dsn, most, name
        self._away_wait_s = away_wait_s
        self._idle: list[Connection] = []
        self._waiting: deque[_Waiter] = deque()
        self._count = self._opening = 0
        self._failed_at: float | None = None
        self._away_since = self._answered_at = 0.0
        self._tries: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def is_away(self) -> bool:
        """Whether a connection was refused and the server has answered nothing since."""
        return self._failed_at is not None and self._failed_at > self._answered_at

    @property
    def answered_at(self) -> float:
        """When the server last answered anything, as far as was told; `time.monotonic()`."""
        return self._answered_at

    def answered(self) -> None:
        """Say that the server has just answered."""
        self._answered_at = time.monotonic()

    def open(self) -> None:
        """Make the first two connections, in the background."""
        for _ in range(min(2, self._most)):
            self._start(self._opened())

    async def close(self) -> None:
        """Give up every connection at rest, and those who wait; what is in use ends with its return."""
        self._closed = True
        while self._waiting:
            self._refuse(self._waiting.popleft(), "the database is closed")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._idle:
            self._drop(self._idle.pop())

    def figures(self) -> dict[str, int]:
        """Connections there are, those at rest and the requests that wait for one."""
        waiting = sum(not waiter.given.done() for waiter in self._waiting)
        return {"connections": self._count, "idle": len(self._idle), "waiting": waiting}

    async def get(self, deadline: float) -> Connection:
        """A connection that was at rest; it may have broken there. Hand it back with `put`.

        Raises `StoreUnavailable` when the queue is full, `deadline` has passed, or the server has
        been away for too long.
        """
        if self._closed:
            raise _unavailable("the database is closed")
        while self._idle:
            connection = self._idle.pop()
            if time.monotonic() < connection.outlived:
                return connection
            self._drop(connection)
        if len(self._waiting) >= WAITING_PER_CONNECTION * self._most:
            raise _unavailable("the database is busy")
        waiter = _Waiter(time.monotonic(), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._grow()
        left_s = max(0.0, deadline - waiter.arrived)
        try:
            async with asyncio.timeout(min(left_s, self._away_wait_s) if self.is_away else left_s):
                return await self._given(waiter)
        except TimeoutError:
            reason = "cannot be reached" if self.is_away else "is busy"
            raise _unavailable(f"the database {reason}") from None

    def put(self, connection: Connection) -> None:
        """Take a connection back: at rest, or broken."""
        broken = connection.pgconn.transaction_status != TransactionStatus.IDLE
        if broken or self._closed or time.monotonic() >= connection.outlived:
            self._drop(connection)
            self._grow()
            return
        self.answered()
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.given.done():
                waiter.given.set_result(connection)
                return
        self._idle.append(connection)

    async def _given(self, waiter: _Waiter) -> Connection:
        try:
            return await waiter.given
        except asyncio.CancelledError:
            given = waiter.given
            if given.done() and not given.cancelled() and given.exception() is None:
                self.put(given.result())
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def _grow(self) -> None:
        """Open more for those who wait; while the server is away that is for one task alone."""
        trying = self._tries is not None and not self._tries.done()
        while (
            not self._closed
            and not trying
            and self._count < self._most
            and self._opening < len(self._waiting)
        ):
            self._start(self._opened())

    def _start(self, opening: Coroutine[Any, Any, bool]) -> None:
        self._count += 1
        self._opening += 1
        self._keep(asyncio.create_task(opening))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _opened(self) -> bool:
        """Open one connection, which is counted already, and give it to who has waited longest."""
        connection: Connection | None = None
        try:
            connection = await self._connected()
        except (psycopg.Error, OSError):
            if not self.is_away:
                self._away_since = time.monotonic()
            self._failed_at = time.monotonic()
            if self._tries is None or self._tries.done():
                self._tries = asyncio.create_task(self._try_often())
                self._keep(self._tries)
        finally:
            self._opening -= 1
            if connection is None:
                self._count -= 1
        if connection is None:
            return False
        self.put(connection)
        return True

    async def _connected(self) -> Connection:
        connection = await Connection.connect(
            self._dsn,
            autocommit=True,
            application_name=self._name,
            connect_timeout=CONNECT_TIMEOUT_S,
            keepalives_idle=10,
            keepalives_interval=2,
            keepalives_count=3,
        )
        fit = False
        try:
            with cut_after(connection, CONNECT_TIMEOUT_S):
                row = await (await connection.execute(_READS_ONLY)).fetchone()
            if row is None or row[0]:
                raise psycopg.OperationalError("the server takes no writes")
            fit = True
        finally:
            if not fit:
                connection.pgconn.finish()
        connection.watch_warnings()
        connection.outlived = time.monotonic() + random.uniform(0.9, 1.0) * _LIFETIME_S
        return connection

    async def _try_often(self) -> None:
        """Try until the server is back, and tell those who have waited long enough that it is not."""
        back = False
        while not back and self._count < self._most:
            await asyncio.sleep(TRY_EVERY_S * random.uniform(0.8, 1.2))
            self._refuse_patient()
            if self._count < self._most:
                self._count += 1
                self._opening += 1
                back = await self._opened()
        self._tries = None
        self._grow()

    def _refuse_patient(self) -> None:
        latest = time.monotonic() - self._away_wait_s
        for waiter in [each for each in self._waiting if self._since(each) <= latest]:
            self._waiting.remove(waiter)
            self._refuse(waiter, "the database cannot be reached")

    def _since(self, waiter: _Waiter) -> float:
        return max(waiter.arrived, self._away_since)

    def _refuse(self, waiter: _Waiter, reason: str) -> None:
        if not waiter.given.done():
            waiter.given.set_exception(_unavailable(reason))
            # Whoever gave up will not fetch it, and asyncio would report it as forgotten.
            waiter.given.exception()

    def _drop(self, connection: Connection) -> None:
        self._count -= 1
        connection.pgconn.finish()


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(reason, retry_after_s=_RETRY_AFTER_S)
