"""The disk guard: uploads are refused before the disk is full, by every process on the machine.

An upload's temporary file carries the size that it will reach in its name and a lock while somebody
writes it, so the room that uploads have been promised is seen by all and survives nobody's death.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployments.data.errors import DiskFull

PARTS = "parts"
SUFFIX = ".part"
STEP = 8 * 1024 * 1024

Statvfs = Callable[[Path], os.statvfs_result]


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system of the blobs, of which `reserve_bytes` must stay free."""

    folder: Path
    reserve_bytes: int
    statvfs: Statvfs = os.statvfs

    @property
    def parts(self) -> Path:
        """Where uploads are written until they are whole."""
        return self.folder / PARTS

    def check(self, further: int = 0) -> None:
        """Raise `DiskFull` if the uploads under way and `further` bytes would leave too little."""
        found = self.statvfs(self.folder)
        free = found.f_bavail * found.f_frsize
        if free - self.promised() - further < self.reserve_bytes:
            raise DiskFull("There is too little room left for uploads; tell the operator.")

    def promised(self) -> int:
        """Bytes that the uploads under way have announced and not written yet."""
        total = 0
        for path in self.parts.glob(f"*{SUFFIX}"):
            try:
                missing = announced_of(path) - path.stat().st_size
            except OSError:
                continue
            if missing > 0 and is_written(path):
                total += missing
        return total


def part_name(unique: str, announced: int) -> str:
    """The name of the temporary file of an upload that will have `announced` stored bytes."""
    return f"{unique}.{announced}{SUFFIX}"


def announced_of(path: Path) -> int:
    """The stored bytes that an upload's temporary file will reach; 0: unknown."""
    number = path.name.removesuffix(SUFFIX).rpartition(".")[2]
    return int(number) if number.isdecimal() else 0


def is_written(path: Path) -> bool:
    """Whether a living process holds the temporary file's lock."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False
