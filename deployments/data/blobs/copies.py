"""Sealed files as such: taken in, given out and checked by the SHA-256 that names them.

Whoever copies blobs between machines needs no key, and learns nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from deployments.data.blobs import files
from deployments.data.blobs.disk import Disk
from deployments.data.blobs.parts import PartFile, WrongContent
from deployments.data.blobs.threads import DiskThreads, batched
from deployments.data.errors import DataError
from deployments.data.seal import framing


class BlobCorrupt(DataError):
    """The operator's concern: a blob's file is not what it was; it is fetched from a copy."""

    code = "blob_corrupt"


class Copies:
    """The sealed files of one folder, for one event loop."""

    def __init__(self, disk: Disk, threads: DiskThreads) -> None:
        """Opens nothing. `threads` stay the caller's to close."""
        self._disk = disk
        self._threads = threads

    async def size(self, name: str) -> int | None:
        """Bytes of a blob's file; None if it is not here."""
        return await self._threads.run(files.size_of, files.path_of(self._disk.folder, name))

    async def sizes(self, names: Sequence[str]) -> dict[str, int | None]:
        """The same of many, in one go."""
        return await self._threads.run(_sizes, self._disk.folder, names)

    async def verify(self, name: str) -> bool:
        """Whether the file has the hash that names it; raises `BlobLost` if it is not here."""
        path = files.path_of(self._disk.folder, name)
        return await self._threads.run(files.hash_of, path) == name

    async def remove(self, name: str) -> bool:
        """Remove a blob's file; tells whether it was here."""
        return await self._threads.run(files.remove, self._disk.folder, name)

    async def take(
        self,
        name: str,
        pieces: AsyncIterator[bytes],
        *,
        announced: int,
        set_aside: bool = False,
    ) -> None:
        """Store `announced` bytes durably under their name, whatever was there.

        `set_aside` keeps a damaged file that is there now. Raises `WrongContent`, `DiskFull`, and
        whatever `pieces` raises; nothing is changed then.
        """
        async with self._threads.part(partial(PartFile, self._disk, announced)) as part:
            async for batch in batched(pieces):
                if part.stored_size + len(batch) > announced:
                    raise WrongContent("There are more bytes than were announced.")
                await self._threads.run(part.write, batch)
            await self._threads.run(partial(part.publish, name, set_aside=set_aside))

    async def give(self, name: str) -> AsyncGenerator[bytes, None]:
        """The stored bytes, unchecked: whoever takes them compares the hash. Raises `BlobLost`."""
        stream = await self._threads.run(_opened, files.path_of(self._disk.folder, name))
        try:
            while piece := await self._threads.run(stream.read, framing.CHUNK):
                yield piece
        finally:
            stream.close()


def _sizes(folder: Path, names: Sequence[str]) -> dict[str, int | None]:
    return {name: files.size_of(files.path_of(folder, name)) for name in names}


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise files.lost() from None
