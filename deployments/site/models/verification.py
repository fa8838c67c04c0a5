"""Whether the files of a version are what its manifest says, read no faster than told."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deployments.site.models.errors import StoreError
from deployments.site.models.manifest import FILE, Entry, Manifest, read

BLOCK = 2**20


class Stopped(Exception):
    """Whoever wanted the answer is leaving."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that is not as it must be; `path` is relative to the version's folder."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {self.reason}"


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to read, and when to stop. Without a rate as fast as the disk."""

    bytes_per_s: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def keep(self, began_s: float, done: int) -> None:
        """Wait until `done` bytes since `began_s` are not too many. Raises `Stopped`."""
        early_s = 0.0
        if self.bytes_per_s is not None:
            early_s = began_s + done / self.bytes_per_s - time.monotonic()
        if self.stop.wait(early_s) if early_s > 0 else self.stop.is_set():
            raise Stopped


FULL_SPEED = Pace()


def digest(file: Path, pace: Pace = FULL_SPEED) -> str:
    """SHA-256 of a file's content as it is on the disk. Raises `OSError` and `Stopped`."""
    total = hashlib.sha256()
    began_s, done = time.monotonic(), 0
    with file.open("rb", buffering=0) as stream:
        _past_memory(stream.fileno())
        while block := stream.read(BLOCK):
            total.update(block)
            done += len(block)
            pace.keep(began_s, done)
        _past_memory(stream.fileno())
    return total.hexdigest()


def faults(folder: Path, version: str, pace: Pace = FULL_SPEED) -> list[Fault]:
    """Every file of a version that is missing, damaged or not in its manifest; empty if it is whole.

    Raises `Stopped`.
    """
    try:
        manifest = read(folder, version)
    except StoreError as error:
        return [Fault(FILE, f"cannot be relied on: {error}")]
    found = [*missing(folder, manifest), *strangers(folder, manifest)]
    known = {fault.path for fault in found}
    for entry in manifest.files:
        if entry.path not in known and (fault := damage(folder, entry, pace)):
            found.append(fault)
    return found


def missing(folder: Path, manifest: Manifest) -> list[Fault]:
    """What can be seen without reading: files that are not there, or of another size."""
    found = []
    for entry in manifest.files:
        try:
            status = (folder / entry.path).stat(follow_symlinks=False)
        except OSError as error:
            found.append(Fault(entry.path, f"is missing ({error.strerror})"))
            continue
        if status.st_size != entry.size:
            reason = f"has {status.st_size} bytes, the manifest says {entry.size}"
            found.append(Fault(entry.path, reason))
    return found


def strangers(folder: Path, manifest: Manifest) -> list[Fault]:
    """Files that the manifest does not name: a loader could take one of them for weights."""
    known = {FILE, *(entry.path for entry in manifest.files)}
    return [
        Fault(path, "is not in the manifest") for path in files_below(folder) if path not in known
    ]


def damage(folder: Path, entry: Entry, pace: Pace = FULL_SPEED) -> Fault | None:
    """What is wrong with one file's content, if anything is. Raises `Stopped`."""
    try:
        found = digest(folder / entry.path, pace)
    except OSError as error:
        return Fault(entry.path, f"cannot be read ({error.strerror})")
    return None if found == entry.sha256 else Fault(entry.path, "is damaged: its SHA-256 differs")


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files but hidden ones, relative, in no order. A link to a folder counts as a file."""
    for top, folders, files in os.walk(folder):
        here = Path(top)
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked = [name for name in folders if (here / name).is_symlink()]
        for name in (*files, *linked):
            if not name.startswith("."):
                yield (here / name).relative_to(folder).as_posix()


def _past_memory(handle: int) -> None:
    """Read from the disk, not from what memory still holds of it, and leave nothing there."""
    if sys.platform == "darwin":
        fcntl.fcntl(handle, fcntl.F_NOCACHE, 1)
    elif hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
