"""Group commit: while one append is under way, what arrives waits for the next, which takes it all.

One task appends; everyone else waits on a future of their own, with a deadline of their own. Nobody
who gives up disturbs the group. While the database is away the entries wait in the queue, because any
append can be repeated, and go to whichever server answers next.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from deployments.data.audit.appender import Appender
from deployments.data.database import FAILOVER_WAIT_S
from deployments.data.errors import CommitUnknown, DataError, DeadlineExceeded, StoreUnavailable

_log = logging.getLogger("medrec.audit")

MAX_WAITING = 4096
MAX_GROUP = 512
MAX_GROUP_BYTES = 4 * 2**20
APPEND_TIMEOUT_S = 5.0
TRY_EVERY_S = 0.4
_RETRY_AFTER_S = 1.0
_STOP_TIMEOUT_S = 2.0


@dataclass(slots=True, eq=False)
class _Waiter:
    """Entries that are chained together or not at all: `bodies`, or rows of the outbox."""

    ids: tuple[UUID, ...]
    bodies: tuple[str, ...]
    deadline: float
    done: asyncio.Future[None]
    failed_at: float | None = None

    @property
    def is_staged(self) -> bool:
        return not self.bodies

    @property
    def size(self) -> int:
        return sum(map(len, self.bodies))


class Committer:
    """The one task of a process that appends to the chain, and those who wait for it."""

    def __init__(self, appender: Appender, *, failover_wait_s: float = FAILOVER_WAIT_S) -> None:
        """`failover_wait_s`: for how long an entry waits after its first append that failed."""
        self._appender = appender
        self._failover_wait_s = failover_wait_s
        self._waiting: deque[_Waiter] = deque()
        self._entries = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self.last_group = 0
        self.groups = 0
        self.chained = 0

    @property
    def waiting(self) -> int:
        """Entries that no append has taken yet."""
        return self._entries

    @property
    def is_full(self) -> bool:
        """Whether nothing more is taken before the next append."""
        return self._entries >= MAX_WAITING

    def start(self) -> None:
        """Begin to append. Needs a running event loop."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="audit-committer")

    async def close(self) -> None:
        """Append what waits, for two seconds at most; who is left is told that nothing was written."""
        task, self._task = self._task, None
        if task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self._idle.wait()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._fail(self._take_all(), StoreUnavailable("the audit is closed"))
        await self._appender.close()

    async def append(self, ids: Sequence[UUID], bodies: Sequence[str], *, deadline: float) -> None:
        """Return once these entries are in the chain, durably.

        Raises `StoreUnavailable` or `DeadlineExceeded`; as ids are unique, either can be repeated.
        """
        if self.is_full:
            message = "too many requests wait for the audit chain"
            raise StoreUnavailable(message, code="audit_busy", retry_after_s=_RETRY_AFTER_S)
        await self._wait(self._enter(ids, bodies, deadline))

    async def settle(self, staged: Sequence[UUID], *, deadline: float) -> None:
        """Return once these rows of the outbox are in the chain, durably. Raises `CommitUnknown`.

        They are chained even if nobody waits for it any more: what they tell of has happened.
        """
        await self._wait(self._enter(staged, (), deadline))

    def _enter(self, ids: Sequence[UUID], bodies: Sequence[str], deadline: float) -> _Waiter:
        if self._task is None:
            failure = CommitUnknown if not bodies else StoreUnavailable
            raise failure("the audit is not open")
        done = asyncio.get_running_loop().create_future()
        waiter = _Waiter(tuple(ids), tuple(bodies), deadline, done)
        self._waiting.append(waiter)
        self._entries += len(waiter.ids)
        self._idle.clear()
        self._arrived.set()
        return waiter

    async def _wait(self, waiter: _Waiter) -> None:
        try:
            await asyncio.wait({waiter.done}, timeout=max(0.0, waiter.deadline - time.monotonic()))
        except asyncio.CancelledError:
            if not waiter.is_staged:
                waiter.done.cancel()
            raise
        if waiter.done.done():
            return waiter.done.result()
        if waiter.is_staged:
            raise CommitUnknown("the audit chain did not confirm the write in time")
        waiter.done.cancel()
        raise DeadlineExceeded("the audit chain did not answer in time")

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                if (group := self._take()) and not await self._commit(group):
                    await asyncio.sleep(TRY_EVERY_S * random.uniform(0.8, 1.2))
            self._idle.set()

    def _take(self) -> list[_Waiter]:
        """The next group, in order of arrival, without those who have given up."""
        group: list[_Waiter] = []
        entries = size = 0
        while self._waiting:
            waiter = self._waiting[0]
            entries, size = entries + len(waiter.ids), size + waiter.size
            if group and (entries > MAX_GROUP or size > MAX_GROUP_BYTES):
                break
            self._waiting.popleft()
            self._entries -= len(waiter.ids)
            if waiter.done.cancelled():
                entries, size = entries - len(waiter.ids), size - waiter.size
            else:
                group.append(waiter)
        return group

    def _take_all(self) -> list[_Waiter]:
        everyone = [waiter for waiter in self._waiting if not waiter.done.done()]
        self._waiting.clear()
        self._entries = 0
        return everyone

    async def _commit(self, group: list[_Waiter]) -> bool:
        """Append a group and tell its waiters; one unfit entry fails alone, not with the group.

        False: the database is away, and who can wait for it is in the queue again.
        """
        try:
            chained = await self._append(group)
        except StoreUnavailable as error:
            patient = self._patient(group)
            self._fail([each for each in group if each not in patient], error)
            self._enter_again(patient)
            return False
        except DataError as error:
            if len(group) == 1:
                _log.critical("an entry was not fit for the audit chain: %s", error)
                self._fail(group, error)
                return True
            for at, waiter in enumerate(group):
                if not await self._commit([waiter]):
                    self._enter_again(group[at + 1 :])
                    return False
        except asyncio.CancelledError:
            self._fail(group, StoreUnavailable("the audit is closed"))
            raise
        except Exception as error:
            # A bug, not an outage; but the task that everyone waits for must outlive it.
            _log.critical("the audit's append failed: %s", type(error).__name__)
            self._fail(group, StoreUnavailable("the audit chain cannot be reached"))
        else:
            self._tell(group, chained)
        return True

    def _patient(self, group: Iterable[_Waiter]) -> list[_Waiter]:
        """Those who wait for another try, now that the database has failed them."""
        now = time.monotonic()
        found = []
        for waiter in group:
            waiter.failed_at = waiter.failed_at or now
            until = min(waiter.deadline, waiter.failed_at + self._failover_wait_s)
            if not waiter.done.done() and now + TRY_EVERY_S < until:
                found.append(waiter)
        return found

    def _enter_again(self, group: list[_Waiter]) -> None:
        """Back to the head of the queue, in order."""
        self._waiting.extendleft(reversed(group))
        self._entries += sum(len(waiter.ids) for waiter in group)

    async def _append(self, group: Iterable[_Waiter]) -> dict[UUID, int]:
        bodies = [body for waiter in group for body in waiter.bodies]
        staged = [id for waiter in group if waiter.is_staged for id in waiter.ids]
        limit = time.monotonic() + APPEND_TIMEOUT_S
        chained = await self._appender.append(bodies, staged, deadline=limit)
        self.last_group = len(bodies) + len(staged)
        self.groups += 1
        self.chained += self.last_group
        return chained

    def _tell(self, group: Iterable[_Waiter], chained: dict[UUID, int]) -> None:
        for waiter in group:
            if waiter.done.done():
                continue
            if all(id in chained for id in waiter.ids):
                waiter.done.set_result(None)
            else:  # its outbox row went with the server that took the write
                _set_error(waiter, CommitUnknown("the write is not in the database any more"))

    def _fail(self, group: Iterable[_Waiter], error: DataError) -> None:
        for waiter in group:
            if waiter.done.done():
                continue
            if waiter.is_staged:
                message = "the write was made, and its audit entry could not be confirmed"
                _set_error(waiter, CommitUnknown(message))
            else:
                failure = type(error)(
                    error.message, code=error.code, retry_after_s=error.retry_after_s
                )
                _set_error(waiter, failure)


def _set_error(waiter: _Waiter, error: DataError) -> None:
    waiter.done.set_exception(error)
    # Whoever gave up will not fetch it, and asyncio would report it as forgotten.
    waiter.done.exception()
