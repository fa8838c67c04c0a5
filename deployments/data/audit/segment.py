"""One file of the journal, held by a lock for as long as somebody is responsible for it.

The lock ends with the process that holds it, however that ends: who gets the lock of a file that is
not its own knows that the writer is dead, and adopts it. Nothing here is for an event loop's thread.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from deployments.data.audit import framing
from deployments.data.audit.framing import Fault, Scan
from deployments.data.durable import synchronise, synchronise_folder

SUFFIX = ".journal"
DRAFT = ".new"
READ_BYTES = 1 << 20


class Segment:
    """A journal file: written by `append` while it is this process's own, read by `read`."""

    def __init__(self, path: Path, file: BinaryIO, previous: bytes | None, size: int) -> None:
        """`previous` is the hash before the first frame, None for a file without a sound header."""
        self.path = path
        self._file = file
        self._written_hash = previous
        self.size = size
        self._read_hash = previous
        self._read_at = framing.HEADER_BYTES if previous is not None else 0
        self.damaged = previous is None
        # Since when something has waited here, by the clock: its oldest part's writing.
        self.marks: list[tuple[int, float]] = []

    @classmethod
    def create(cls, folder: Path) -> Segment:
        """A new file, locked before anyone can see it, and its name made durable."""
        name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
        draft = folder / f"{name}{DRAFT}"
        handle = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            header = framing.new_header()
            _write(file, header)
            synchronise(file.fileno())
            path = folder / f"{name}{SUFFIX}"
            draft.rename(path)
            synchronise_folder(folder)
        except BaseException:
            file.close()
            draft.unlink(missing_ok=True)
            raise
        return cls(path, file, framing.seed(header), framing.HEADER_BYTES)

    @classmethod
    def adopt(cls, path: Path) -> Segment | None:
        """The file of a process that is gone; None if its writer lives, or it is gone itself."""
        try:
            file = path.open("r+b", buffering=0)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            # Another process may have adopted, chained and removed it in between.
            if not os.path.samestat(found, path.stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            file.close()
            return None
        previous = framing.seed(os.pread(file.fileno(), framing.HEADER_BYTES, 0))
        segment = cls(path, file, previous, found.st_size)
        if not segment.is_done:
            segment.marks = [(found.st_size, found.st_mtime)]
        return segment

    def append(self, bodies: Sequence[bytes]) -> int:
        """Write, and return the new size once the disk has it. After an `OSError` use another file."""
        assert self._written_hash is not None
        data, last = framing.frames(bodies, self._written_hash)
        try:
            _write(self._file, data)
            synchronise(self._file.fileno())
        except OSError:
            # These entries were not accepted: let nobody find half of them.
            with suppress(OSError):
                self._file.truncate(self.size)
            raise
        self._written_hash = last
        return self.size + len(data)

    def read(self) -> tuple[Scan, int]:
        """The next frames that are not chained yet, and the offset of the first; see `advance`."""
        at = self._read_at
        if self._read_hash is None:
            return Scan((), self.size, b"", (Fault("damaged", 0, self.size),)), at
        amount = min(self.size - at, READ_BYTES + framing.MAX_BODY)
        data = os.pread(self._file.fileno(), amount, at)
        return framing.scan(data, self._read_hash, ends=at + len(data) >= self.size), at

    def advance(self, scan: Scan) -> None:
        """What `read` found is chained."""
        self._read_at += scan.length
        if self._read_hash is not None:
            self._read_hash = scan.previous
        self.marks = [mark for mark in self.marks if mark[0] > self._read_at]

    @property
    def is_done(self) -> bool:
        """Whether everything in it is chained."""
        return self._read_at >= self.size

    def release(self) -> None:
        """Let the file go as it is: somebody else may adopt it."""
        self._file.close()

    def discard(self) -> None:
        """Remove the file; a damaged one is set aside instead, for people to look at."""
        if self.damaged:
            self.path.rename(self.path.with_suffix(".damaged"))
        else:
            self.path.unlink(missing_ok=True)
        self._file.close()


def _write(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]
