"""Storing and opening blobs: bytes stream through, and no more than a few chunks are held.

A blob comes to be in three steps: `put` makes the sealed file durable under its name, here and on the
other cell, then `keep` adds its row in the transaction of the resource that it belongs to. A file
without a row is swept later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from configs.args import RecordsArgs
from deployments.data.blobs import files
from deployments.data.blobs.copies import Copies
from deployments.data.blobs.disk import Disk, Statvfs
from deployments.data.blobs.parts import SealedPart
from deployments.data.blobs.peer import Peer, PeerAway
from deployments.data.blobs.threads import DiskThreads, batched
from deployments.data.errors import Gone, NotFound, TooLarge
from deployments.data.seal import framing
from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import KEY_BYTES, Sealer

_MB = 2**20
_GB = 2**30

_log = logging.getLogger("medrec.blobs")


@dataclass(frozen=True, slots=True)
class Draft:
    """Content that is stored durably and belongs to nothing yet.

    `is_single`: the other cell, which should have it as well, has not.
    """

    name: str
    id: uuid.UUID
    size: int
    stored_size: int
    sha256: str
    key: bytes = field(repr=False)
    is_single: bool = False


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
        self._threads = DiskThreads()
        self._host = args.others.host
        self._peer = Peer(args.others.peer, args.others) if args.others.peer else None
        self._mending: dict[str, asyncio.Task[bool]] = {}
        self.copies = Copies(self._disk, self._threads)
        self.max_stored_size = framing.sealed_size(self._max_bytes)
        self.fetched = self.singles = 0

    async def close(self) -> None:
        """End the threads and connections; what the threads are doing is done."""
        for task in list(self._mending.values()):
            task.cancel()
        if self._peer is not None:
            await self._peer.close()
        self._threads.close()

    def check_size(self, announced: int | None) -> None:
        """Raise `TooLarge` if so many bytes are not taken."""
        if announced is not None and announced > self._max_bytes:
            raise TooLarge(f"At most {self._max_bytes // _MB} MB are taken.")

    async def put(self, pieces: AsyncIterator[bytes], *, announced: int | None) -> Draft:
        """Store a stream. `announced` is its length as far as the sender told it.

        Raises `TooLarge`, `DiskFull`, and whatever `pieces` raises; nothing is left then. That the
        other cell cannot take it is no error: the draft says so.
        """
        self.check_size(announced)
        key, id = os.urandom(KEY_BYTES), uuid.uuid4()
        opening = partial(SealedPart, self._disk, key, id.bytes, announced)
        async with self._threads.part(opening) as part:
            async for batch in batched(pieces):
                self.check_size(part.size + len(batch))
                await self._threads.run(part.write, batch)
            name = await self._threads.run(part.publish)
        is_single = not await self._handed_over(name, part.stored_size)
        return Draft(name, id, part.size, part.stored_size, part.sha256, key, is_single)

    async def _handed_over(self, name: str, size: int) -> bool:
        """Whether the blob is everywhere it should be."""
        if self._peer is None:
            return True
        async with aclosing(self.copies.give(name)) as pieces:
            handed = await self._peer.hand(name, size, pieces)
        self.singles += not handed
        return handed

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
            " content_type, size, stored_size, sha256, key_id, wrapped_key, single_on)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(draft.name, draft.id, organization, *resource, patient, content_type),
                *(draft.size, draft.stored_size, draft.sha256, key_id, wrapped_key),
                self._host if draft.is_single else None,
            ),
        )

    async def discard(self, draft: Draft) -> None:
        """Remove the file of a draft that has no row and will get none.

        A copy of it on the other cell is swept there.
        """
        await self.copies.remove(draft.name)

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

        A file that is missing or damaged here is fetched from the other cell on the way. Raises
        `SealBroken`, `BlobLost` or `PeerAway`, at the first step where that can be known then.
        """
        end = ref.size if end is None else min(end, ref.size)
        stored = await self._opened(ref)
        try:
            last = max(start, end - 1) // framing.CHUNK
            for number in range(start // framing.CHUNK, last + 1):
                try:
                    plain = await self._threads.run(stored.chunk, number)
                except SealBroken:
                    if not await self._mended(ref):
                        raise
                    stored.close()
                    stored = await self._opened(ref)
                    plain = await self._threads.run(stored.chunk, number)
                offset = number * framing.CHUNK
                piece = plain[max(0, start - offset) : max(0, end - offset)]
                if piece:
                    yield piece
        finally:
            stored.close()

    async def verify(self, name: str) -> bool:
        """Whether the stored bytes are those that the name was made of."""
        return await self.copies.verify(name)

    async def _opened(self, ref: BlobRef) -> files.StoredFile:
        key = self._sealer.unwrap(ref.key_id, ref.wrapped_key)
        path = files.path_of(self._folder, ref.name)
        opening = partial(files.StoredFile, path, key, ref.id.bytes, ref.size)
        try:
            return await self._threads.run(opening)
        except (files.BlobLost, SealBroken):
            if not await self._mended(ref):
                raise
        return await self._threads.run(opening)

    async def _mended(self, ref: BlobRef) -> bool:
        """Whether the file is now as it should be; one attempt at a time.

        Raises `PeerAway` if it is missing here and the other cell cannot be asked.
        """
        task = self._mending.get(ref.name)
        if task is None:
            task = asyncio.create_task(self._mend(ref.name, framing.sealed_size(ref.size)))
            self._mending[ref.name] = task
            task.add_done_callback(lambda _: self._mending.pop(ref.name, None))
        return await asyncio.shield(task)

    async def _mend(self, name: str, size: int) -> bool:
        if self._peer is None:
            return False
        found = await self.copies.size(name)
        if found == size and await self.copies.verify(name):
            return True
        try:
            await self._peer.fetch(name, size, self.copies, set_aside=found is not None)
        except PeerAway:
            if found is None:
                raise
            return False
        except files.BlobLost:
            return False
        self.fetched += 1
        _log.warning("blob %s was %s here; fetched", name, "damaged" if found else "missing")
        return True


async def erase(connection: psycopg.AsyncConnection[Any], folder: Path, name: str) -> bool:
    """Destroy a blob's key, then its file; its row remains. Tells whether it had a key.

    The other cell removes its file when it next compares rows with files (reconcile.py).
    `connection` is the owner's, in autocommit: what cannot be read any more must be so durably
    before the file goes. Copies of the row in backups live until those expire.
    """
    cursor = await connection.execute(
        "UPDATE records.blob SET key_id = NULL, wrapped_key = NULL, sha256 = NULL,"
        " single_on = NULL, erased_at = now() WHERE name = %s AND erased_at IS NULL",
        (name,),
    )
    await asyncio.to_thread(files.remove, folder, name)
    return cursor.rowcount == 1
