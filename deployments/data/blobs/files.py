"""The files of blobs: written sealed in one pass, published by a rename, read chunk by chunk.

Everything here blocks and is called in threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import uuid
from pathlib import Path

from deployments.data.blobs.disk import STEP, Disk, part_name
from deployments.data.durable import synchronise, synchronise_folder
from deployments.data.errors import DataError
from deployments.data.seal import framing
from deployments.data.seal.errors import SealBroken

NAME_LENGTH = 64


class BlobLost(DataError):
    """The operator's concern: a blob's file is not where its row says; restore it from a copy."""

    code = "blob_lost"


def path_of(folder: Path, name: str) -> Path:
    """Where a blob lies: `ab/cd/<name>`."""
    return folder / name[:2] / name[2:4] / name


class PartFile:
    """One upload on its way: sealed while it is written, gone unless it is published."""

    def __init__(self, disk: Disk, key: bytes, context: bytes, announced: int | None) -> None:
        """Raises `DiskFull` if the announced bytes, or those of one step, do not fit."""
        self._disk = disk
        self._sealer = framing.StreamSealer(key, context)
        self._plain, self._stored = hashlib.sha256(), hashlib.sha256()
        self.size = self.stored_size = 0
        self._checked = 0
        self._lock = threading.Lock()
        expected = 0 if announced is None else framing.sealed_size(announced)
        self._path = disk.parts / part_name(uuid.uuid4().hex, expected)
        self._further = STEP if announced is None else 0
        disk.parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            disk.check(self._further)
            self._write(self._sealer.header)
        except BaseException:
            self.abort()
            raise

    @property
    def sha256(self) -> str:
        """SHA-256 of the plain bytes so far."""
        return self._plain.hexdigest()

    def write(self, piece: bytes) -> None:
        """Seal and write some plain bytes. Raises `DiskFull` when room runs out on the way."""
        with self._lock:
            self._plain.update(piece)
            self.size += len(piece)
            for chunk in self._sealer.feed(piece):
                self._write(chunk)
            if self.stored_size - self._checked >= STEP:
                self._checked = self.stored_size
                self._disk.check(self._further)

    def publish(self) -> str:
        """Seal the end, make it durable under its name, and return the name."""
        with self._lock:
            self._write(self._sealer.finish())
            synchronise(self._handle)
            name = self._stored.hexdigest()
            target = path_of(self._disk.folder, name)
            for folder in (target.parent.parent, target.parent):
                if not folder.exists():
                    folder.mkdir(exist_ok=True, mode=0o700)
                    synchronise_folder(folder.parent)
            self._path.rename(target)
            synchronise_folder(target.parent)
            self._close()
            return name

    def abort(self) -> None:
        """Remove what was written; nothing happens after `publish`."""
        with self._lock:
            if self._handle >= 0:
                self._path.unlink(missing_ok=True)
                self._close()

    def _write(self, data: bytes) -> None:
        if self._handle < 0:
            raise ValueError("this upload has ended")
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]
        self._stored.update(data)
        self.stored_size += len(data)

    def _close(self) -> None:
        os.close(self._handle)
        self._handle = -1


class StoredFile:
    """A published blob, opened for reading."""

    def __init__(self, path: Path, key: bytes, context: bytes, size: int) -> None:
        """Raises `BlobLost` if it is not there, `SealBroken` if it is not as long as it was."""
        try:
            self._handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise BlobLost("The content of this document is missing on this machine.") from None
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
        """The plain bytes of one chunk, verified."""
        data = os.pread(self._handle, framing.FRAME, framing.offset_of(number))
        return self._opener.open(number, data)

    def close(self) -> None:
        """Give the file back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def hash_of(path: Path) -> str:
    """SHA-256 of a stored file; raises `BlobLost` if it is not there."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise BlobLost("The content of this document is missing on this machine.") from None


def remove(path: Path) -> bool:
    """Unlink a file durably; tells whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    synchronise_folder(path.parent)
    return True
