"""The local journal: entries that may be written before the database has them, kept by this disk.

`append` returns after an fsync that many entries share. The files are bounded; over the bound, and
on any failure of the disk, an entry is refused, since nothing may go unrecorded. The forwarder
(audit/forwarder.py) takes them to the chain, in order, and then the files go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from deployments.data.audit.framing import Fault, Scan
from deployments.data.audit.segment import DRAFT, SUFFIX, Segment
from deployments.data.errors import StoreUnavailable

_log = logging.getLogger("medrec.audit")
P = ParamSpec("P")
T = TypeVar("T")

MAX_BYTES = 64 * 2**20
MAX_PENDING = 4096
_ROTATE_BYTES = 4 * 2**20
_GROUP = 512
_WRITE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The next entries for the chain, of one file, in order; and what is not sound between them."""

    segment: Segment
    scan: Scan
    offset: int

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What is damaged or torn; offsets count from `offset`."""
        return self.scan.faults


class Journal:
    """The journal of one process, with the files that it has adopted, for one event loop."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._segments: list[Segment] = []  # oldest first
        self._active: Segment | None = None
        self._pending: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer: asyncio.Task[None] | None = None
        # One thread: whoever writes, reads or removes files does so in turn.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit-journal")
        self.written = asyncio.Event()

    @property
    def size(self) -> int:
        """Bytes on disk that are not chained yet or not yet removed."""
        return sum(segment.size for segment in self._segments)

    @property
    def lag_s(self) -> float:
        """Seconds that the oldest entry has waited; 0.0 if none waits."""
        oldest = min((s.marks[0][1] for s in self._segments if s.marks), default=None)
        return 0.0 if oldest is None else max(0.0, time.time() - oldest)

    async def open(self) -> None:
        """Adopt what dead processes left and begin to write."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self.adopt()
        self._writer = asyncio.create_task(self._write(), name="audit-journal")

    async def close(self) -> None:
        """Write what waits; files that are not chained stay and can be adopted."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await self._idle.wait()
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        for _, done in self._pending:
            _refuse(done, "the audit journal is closed")
        self._pending.clear()
        segments, self._segments, self._active = self._segments, [], None
        await self._off_loop(_let_go, segments)
        self._thread.shutdown(wait=False)

    async def append(self, body: bytes) -> None:
        """Return once the disk has it. Raises `StoreUnavailable`."""
        if self._writer is None:
            raise StoreUnavailable("the audit journal is not open")
        full = self.size + self._pending_bytes + len(body) > self._max_bytes
        if full or len(self._pending) >= MAX_PENDING:
            raise StoreUnavailable(
                "the audit journal is full", code="journal_full", retry_after_s=5.0
            )
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((body, done))
        self._pending_bytes += len(body)
        self._idle.clear()
        self._arrived.set()
        await asyncio.wait({done}, timeout=_WRITE_TIMEOUT_S)
        if not done.done():
            raise StoreUnavailable("the disk did not take the audit entry in time")
        done.result()

    async def adopt(self) -> int:
        """Take over the files of dead processes, before our own. Returns how many there were."""
        own = {segment.path for segment in self._segments}
        adopted = await self._off_loop(_adopt, self._folder, own)
        self._segments[:0] = adopted
        if adopted:
            _log.warning("adopted %d journal files of ended processes", len(adopted))
            self.written.set()
        return len(adopted)

    async def next_batch(self) -> Batch | None:
        """What is to be chained next; None if nothing is left. Files that are done are removed."""
        while self._segments:
            segment = self._segments[0]
            if not segment.is_done:
                scan, offset = await self._off_loop(segment.read)
                return Batch(segment, scan, offset)
            if segment is self._active:
                if segment.size < _ROTATE_BYTES:
                    return None
                self._active = None
            await self._off_loop(segment.discard)
            self._segments.remove(segment)
        return None

    def chained(self, batch: Batch) -> None:
        """The batch is in the chain, durably."""
        batch.segment.advance(batch.scan)

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pending:
                amount = min(len(self._pending), _GROUP)
                group = [self._pending.popleft() for _ in range(amount)]
                self._pending_bytes -= sum(len(body) for body, _ in group)
                await self._write_group(group)
            self._idle.set()

    async def _write_group(self, group: list[tuple[bytes, asyncio.Future[None]]]) -> None:
        began = time.time()
        try:
            segment = self._active
            if segment is None or segment.size >= _ROTATE_BYTES:
                segment = await self._off_loop(Segment.create, self._folder)
                self._segments.append(segment)
                self._active = segment
            size = await self._off_loop(segment.append, [body for body, _ in group])
        except Exception as error:
            # The kernel may have dropped what it could not write: never trust this file again.
            self._active = None
            _log.critical("the audit journal cannot be written: %s", type(error).__name__)
            for _, done in group:
                _refuse(done, "the audit journal cannot be written")
            return
        except asyncio.CancelledError:
            for _, done in group:
                _refuse(done, "the audit journal is closed")
            raise
        segment.size = size
        segment.marks.append((size, began))
        self.written.set()
        for _, done in group:
            if not done.done():
                done.set_result(None)

    async def _off_loop(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, partial(function, *arguments, **named))


def _adopt(folder: Path, own: set[Path]) -> list[Segment]:
    for draft in folder.glob(f"*{DRAFT}"):
        if (left := Segment.adopt(draft)) is not None:  # its writer died before the first entry
            draft.unlink(missing_ok=True)
            left.release()
    paths = sorted(path for path in folder.glob(f"*{SUFFIX}") if path not in own)
    return [segment for path in paths if (segment := Segment.adopt(path)) is not None]


def _let_go(segments: list[Segment]) -> None:
    for segment in segments:
        if segment.is_done:
            segment.discard()
        else:
            segment.release()


def _refuse(done: asyncio.Future[None], message: str) -> None:
    if not done.done():
        done.set_exception(StoreUnavailable(message, retry_after_s=5.0))
        done.exception()
