"""Storing and opening blobs: bytes stream through, and no more than a few chunks are held.

A blob comes to be in two steps: `put` makes the sealed file durable under its name, then `keep` adds
its row in the transaction of the resource that it belongs to. A file without a row is swept later.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg

from configs.args import RecordsArgs
from deployments.data.blobs import files
from deployments.data.blobs.disk import Disk, Statvfs
from deployments.data.errors import Gone, NotFound, TooLarge
from deployments.data.seal import framing
from deployments.data.seal.sealer import KEY_BYTES, Sealer

T = TypeVar("T")

_THREADS = 4
_MB = 2**20
_GB = 2**30


@dataclass(frozen=True, slots=True)
class Draft:
    """Content that is stored durably and belongs to nothing yet."""

    name: str
    id: uuid.UUID
    size: int
    stored_size: int
    sha256: str
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class BlobRef:
    """The row of a blob: what is needed to open it."""

    name: str
    id: uuid.UUID
    size: int
    content_type: str
    sha256: str
    key_id: str
    wrapped_key: bytes = field(repr=False)


class Blobs:
    """The blobs of one folder, for one event loop."""

    def __init__(
        self, sealer: Sealer, folder: Path, args: RecordsArgs, *, statvfs: Statvfs = os.statvfs
    ) -> None:
        """Opens nothing."""
        self._sealer = sealer
        self._folder = folder
        self._max_bytes = args.max_upload_mb * _MB
        self._disk = Disk(folder, int(args.disk_reserve_gb * _GB), statvfs)
        # Of its own, so that slow disks do not take the threads of everything else.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    async def close(self) -> None:
        """End the threads; what they are doing is done."""
        self._threads.shutdown(wait=False)

    def check_size(self, announced: int | None) -> None:
        """Raise `TooLarge` if so many bytes are not taken."""
        if announced is not None and announced > self._max_bytes:
            raise TooLarge(f"At most {self._max_bytes // _MB} MB are taken.")

    async def put(self, pieces: AsyncIterator[bytes], *, announced: int | None) -> Draft:
        """Store a stream. `announced` is its length as far as the sender told it.

        Raises `TooLarge`, `DiskFull`, and whatever `pieces` raises; nothing is left then.
        """
        self.check_size(announced)
        key, id = os.urandom(KEY_BYTES), uuid.uuid4()
        opening = self._threads.submit(files.PartFile, self._disk, key, id.bytes, announced)
        try:
            part = await asyncio.wrap_future(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_abandon)
            raise
        try:
            async for batch in _batched(pieces):
                self.check_size(part.size + len(batch))
                await self._run(part.write, batch)
            name = await self._run(part.publish)
        except BaseException:
            # In a thread even if this task is cancelled: a chunk may still be on its way to the disk.
            await asyncio.shield(self._run(part.abort))
            raise
        return Draft(name, id, part.size, part.stored_size, part.sha256, key)

    async def keep(
        self,
        connection: psycopg.AsyncConnection[Any],
        draft: Draft,
        *,
        organization: str,
        resource: tuple[str, str, int],
        patient: str | None,
        content_type: str,
    ) -> None:
        """Add the row of a draft, for the version (type, id, version) that this transaction writes."""
        key_id, wrapped_key = self._sealer.wrap(draft.key)
        await connection.execute(
            "INSERT INTO records.blob (name, id, organization, type, resource, version, patient,"
            " content_type, size, stored_size, sha256, key_id, wrapped_key)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(draft.name, draft.id, organization, *resource, patient, content_type),
                *(draft.size, draft.stored_size, draft.sha256, key_id, wrapped_key),
            ),
        )

    async def discard(self, draft: Draft) -> None:
        """Remove the file of a draft that has no row and will get none."""
        await self._run(files.remove, files.path_of(self._folder, draft.name))

    async def find(
        self, connection: psycopg.AsyncConnection[Any], type: str, id: str, version: int
    ) -> BlobRef:
        """The blob of a version, by the rights of the transaction. Raises `NotFound`, `Gone`."""
        cursor = await connection.execute(
            "SELECT name, id, size, content_type, sha256, key_id, wrapped_key FROM records.blob"
            " WHERE type = %s AND resource = %s AND version = %s",
            (type, id, version),
        )
        row = await cursor.fetchone()
        if row is None:
            raise NotFound("There is no content of this version.")
        if row[6] is None:
            raise Gone("The content was erased.")
        return BlobRef(*row)

    async def open(
        self, ref: BlobRef, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The plain bytes from `start` to before `end`, every chunk verified before it is yielded.

        Raises `SealBroken` or `BlobLost`, at the first step where that can be known then.
        """
        end = ref.size if end is None else min(end, ref.size)
        key = self._sealer.unwrap(ref.key_id, ref.wrapped_key)
        path = files.path_of(self._folder, ref.name)
        stored = await self._run(files.StoredFile, path, key, ref.id.bytes, ref.size)
        try:
            last = max(start, end - 1) // framing.CHUNK
            for number in range(start // framing.CHUNK, last + 1):
                plain = await self._run(stored.chunk, number)
                offset = number * framing.CHUNK
                piece = plain[max(0, start - offset) : max(0, end - offset)]
                if piece:
                    yield piece
        finally:
            stored.close()

    async def verify(self, name: str) -> bool:
        """Whether the stored bytes are those that the name was made of."""
        return await self._run(files.hash_of, files.path_of(self._folder, name)) == name

    async def _run(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)


def _abandon(opening: Future[files.PartFile]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


async def _batched(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
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


async def erase(connection: psycopg.AsyncConnection[Any], folder: Path, name: str) -> bool:
    """Destroy a blob's key, then its file; its row remains. Tells whether it had a key.

    `connection` is the owner's, in autocommit: what cannot be read any more must be so durably
    before the file goes. Copies of the row in backups live until those expire.
    """
    cursor = await connection.execute(
        "UPDATE records.blob SET key_id = NULL, wrapped_key = NULL, sha256 = NULL,"
        " erased_at = now() WHERE name = %s AND erased_at IS NULL",
        (name,),
    )
    await asyncio.to_thread(files.remove, files.path_of(folder, name))
    return cursor.rowcount == 1
