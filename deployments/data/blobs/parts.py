"""Files on their way: under a temporary name until they are whole, then published by a rename.

Everything here blocks and is called in threads.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import uuid

from deployments.data.blobs.disk import STEP, Disk, part_name
from deployments.data.blobs.files import aside_of, path_of
from deployments.data.durable import synchronise, synchronise_folder
from deployments.data.errors import Unprocessable
from deployments.data.seal import framing


class WrongContent(Unprocessable):
    """The sender's fault: the bytes do not have the SHA-256 that names them."""

    code = "wrong_content"


class PartFile:
    """Stored bytes, hashed while they are written; gone unless they are published."""

    def __init__(self, disk: Disk, announced: int | None) -> None:
        """`announced` stored bytes will come. Raises `DiskFull` if they, or a step, do not fit."""
        self._disk = disk
        self._hash = hashlib.sha256()
        self.stored_size = 0
        self._checked = 0
        self._lock = threading.Lock()
        self._path = disk.parts / part_name(uuid.uuid4().hex, announced or 0)
        self._further = STEP if announced is None else 0
        disk.parts.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            disk.check(self._further)
        except BaseException:
            self.abort()
            raise

    def write(self, data: bytes) -> None:
        """Write some bytes. Raises `DiskFull` when room runs out on the way."""
        with self._lock:
            if self._handle < 0:
                raise ValueError("this upload has ended")
            view = memoryview(data)
            while view:
                view = view[os.write(self._handle, view) :]
            self._hash.update(data)
            self.stored_size += len(data)
            if self.stored_size - self._checked >= STEP:
                self._checked = self.stored_size
                self._disk.check(self._further)

    def publish(self, expected: str | None = None, *, set_aside: bool = False) -> str:
        """Make it durable under its name, and return the name.

        Raises `WrongContent` unless that is the `expected` one. `set_aside` keeps what is at the name
        now, a damaged file, in the folder for those.
        """
        with self._lock:
            name = self._hash.hexdigest()
            if expected is not None and name != expected:
                raise WrongContent("These bytes do not have the SHA-256 that names them.")
            synchronise(self._handle)
            folder = self._disk.folder
            target = path_of(folder, name)
            for made in (target.parent.parent, target.parent):
                if not made.exists():
                    made.mkdir(exist_ok=True, mode=0o700)
                    synchronise_folder(made.parent)
            if set_aside and target.exists():
                aside = aside_of(folder, name)
                aside.parent.mkdir(exist_ok=True, mode=0o700)
                aside.unlink(missing_ok=True)
                # A second name of the same file: no reader finds nothing between two renames.
                os.link(target, aside)
                os.utime(aside)
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

    def _close(self) -> None:
        os.close(self._handle)
        self._handle = -1


class SealedPart:
    """An upload: plain bytes go in, and are sealed while they are written."""

    def __init__(self, disk: Disk, key: bytes, context: bytes, announced: int | None) -> None:
        """`announced` plain bytes will come. Raises `DiskFull` if they, or a step, do not fit."""
        self._sealer = framing.StreamSealer(key, context)
        self._plain = hashlib.sha256()
        self.size = 0
        expected = None if announced is None else framing.sealed_size(announced)
        self._part = PartFile(disk, expected)
        try:
            self._part.write(self._sealer.header)
        except BaseException:
            self.abort()
            raise

    @property
    def sha256(self) -> str:
        """SHA-256 of the plain bytes so far."""
        return self._plain.hexdigest()

    @property
    def stored_size(self) -> int:
        """The sealed bytes so far."""
        return self._part.stored_size

    def write(self, piece: bytes) -> None:
        """Seal and write some plain bytes. Raises `DiskFull` when room runs out on the way."""
        self._plain.update(piece)
        self.size += len(piece)
        for chunk in self._sealer.feed(piece):
            self._part.write(chunk)

    def publish(self) -> str:
        """Seal the end, make it durable under its name, and return the name."""
        self._part.write(self._sealer.finish())
        return self._part.publish()

    def abort(self) -> None:
        """Remove what was written; nothing happens after `publish`."""
        self._part.abort()
