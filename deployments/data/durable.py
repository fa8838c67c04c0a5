"""Files that survive a crash: content on the disk before its name, names on the disk as well."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def synchronise(handle: int) -> None:
    """Return once the disk, not only its cache, has what was written."""
    if sys.platform == "darwin":  # fsync leaves it in the drive's cache there
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fsync(handle)


def synchronise_folder(folder: Path) -> None:
    """Make the names in a folder survive a crash."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file of the owner's own in one step; a crash leaves the old or the new one.

    Its folder is made if need be, for the owner alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        synchronise(stream.fileno())
    draft.replace(path)
    synchronise_folder(path.parent)
