"""The files of blobs: where they lie, read chunk by chunk, checked by their hash.

Everything here blocks and is called in threads.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

from deployments.data.durable import synchronise_folder
from deployments.data.errors import DataError
from deployments.data.seal import framing
from deployments.data.seal.errors import SealBroken

NAME_LENGTH = 64
CORRUPT = "corrupt"


class BlobLost(DataError):
    """The operator's concern: a blob's file is not where its row says; restore it from a copy."""

    code = "blob_lost"


def path_of(folder: Path, name: str) -> Path:
    """Where a blob lies: `ab/cd/<name>`."""
    return folder / name[:2] / name[2:4] / name


def aside_of(folder: Path, name: str) -> Path:
    """Where a damaged file is kept for a while once a good one has taken its place."""
    return folder / CORRUPT / name


class StoredFile:
    """A published blob, opened for reading."""

    def __init__(self, path: Path, key: bytes, context: bytes, size: int) -> None:
        """Raises `BlobLost` if it is not there, `SealBroken` if it is not as long as it was."""
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise lost() from None
        try:
            if os.fstat(self._handle).st_size != framing.sealed_size(size):
                raise SealBroken("A stored document is shorter or longer than it was.")
            header = os.pread(self._handle, framing.HEADER, 0)
            chunks = framing.chunks_of(size)
            self._opener = framing.StreamOpener(key, context, header, chunks)
        except BaseException:
            self.close()
            raise

    def chunk(self, number: int) -> bytes:
        """The plain bytes of one chunk, verified. Raises `SealBroken`, for a sector that is gone too."""
        try:
            data = os.pread(self._handle, framing.FRAME, framing.offset_of(number))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            raise SealBroken("The disk does not give a stored document back.") from None
        return self._opener.open(number, data)

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def lost() -> BlobLost:
    """The error of a file that is not there."""
    return BlobLost("The content of this document is missing on this machine.")


def size_of(path: Path) -> int | None:
    """Bytes of a stored file; None if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def hash_of(path: Path) -> str:
    """SHA-256 of a stored file, "" if the disk does not give it back; raises `BlobLost`."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise lost() from None
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return ""


def remove(folder: Path, name: str) -> bool:
    """Remove a blob's file durably, and a damaged one kept of it; tells whether it was there."""
    aside_of(folder, name).unlink(missing_ok=True)
    path = path_of(folder, name)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    synchronise_folder(path.parent)
    return True
