"""Threads of the blobs' own, so that slow disks do not take the threads of everything else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from deployments.data.seal import framing

T = TypeVar("T")
_THREADS = 4


class Abortable(Protocol):
    """Something that leaves nothing behind when it is aborted."""

    def abort(self) -> None:
        """Remove what was written, unless it was published."""


P = TypeVar("P", bound=Abortable)


class DiskThreads:
    """A few threads that do what blocks."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def close(self) -> None:
        """Take no more work; what is being done is done."""
        self._threads.shutdown(wait=False)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """The result of `work` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @asynccontextmanager
    async def part(self, make: Callable[[], P]) -> AsyncIterator[P]:
        """A file on its way, which is gone after the block unless it was published in it."""
        opening = self._threads.submit(make)
        try:
            part = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_abandon)
            raise
        try:
            yield part
        except BaseException:
            # In a thread even if this task is cancelled: a chunk may still be on its way to the disk.
            await asyncio.shield(self.run(part.abort))
            raise


def _abandon(opening: Future[Any]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


async def batched(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces of about a chunk: a thread is not woken for every packet."""
    batch: list[bytes] = []
    size = 0
    async for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= framing.CHUNK:
            yield b"".join(batch)
            batch.clear()
            size = 0
    if batch:
        yield b"".join(batch)
