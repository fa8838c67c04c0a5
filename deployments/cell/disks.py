"""How full the file systems of this machine are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import psutil


def free_ratios(folders: Iterable[Path] = ()) -> dict[str, float]:
    """Free part (0 to 1) of every file system on a disk, and of those that `folders` lie on.

    By mount point; what cannot be looked at is left out.
    """
    points = {partition.mountpoint for partition in psutil.disk_partitions()}
    points |= {str(_mount_of(folder)) for folder in folders}
    found = {}
    for point in sorted(points):
        try:
            usage = psutil.disk_usage(point)
        except OSError:
            continue
        if usage.total:
            found[point] = usage.free / usage.total
    return found


def _mount_of(folder: Path) -> Path:
    """The mount point above a folder, which need not exist."""
    path = folder.resolve()
    while not path.is_mount():
        path = path.parent
    return path
