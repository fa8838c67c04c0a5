"""A small disk under each PostgreSQL of a local site, for the drill in which it fills up."""

from __future__ import annotations

import subprocess

from deployments.cell.state import CellError
from deployments.data import postgres_account
from deployments.site.plan import Plan

_TIMEOUT_S = 15
FILLER = "filler"


def small_disks(plan: Plan, size_mb: int) -> None:
    """Mount a file system of `size_mb` (2**20 bytes) below each cell's data folder. Raises `CellError`.

    0: nothing. In memory, and of root's making.
    """
    if not size_mb:
        return
    for cell in plan.cells:
        # Above the data folder, which Patroni removes and makes anew.
        disk = cell.database.parent
        disk.mkdir(parents=True, exist_ok=True, mode=0o700)
        _run("mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0700", "tmpfs", str(disk))
        postgres_account.hand_over(disk)


def undo_disks(plan: Plan) -> None:
    """Unmount what is mounted there."""
    for cell in plan.cells:
        if cell.database.parent.is_mount():
            _run("umount", "--lazy", str(cell.database.parent))


def _run(*line: str) -> None:
    done = subprocess.run(line, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise CellError(f"{' '.join(line)}: {done.stderr.strip()}")
