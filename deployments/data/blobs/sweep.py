"""What is left over is removed: temporary files nobody writes, files without a row, and, after a week,
damaged files that a good one has replaced. Each cell sweeps its own folder.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments.data.blobs import files
from deployments.data.blobs.disk import PARTS, SUFFIX, is_written
from deployments.data.database import Database

OLDER_THAN_S = 3600.0
# Longer than an upload's row comes after its file; measured, not read off a clock that may jump.
SETTLE_S = 120.0
ASIDE_S = 7 * 86_400.0
_BATCH = 500
_FEW = 16

_log = logging.getLogger("medrec.blobs")


@dataclass(frozen=True, slots=True)
class Swept:
    """Files looked at and removed; `refused` is why the orphans were left, if they were."""

    looked_at: int
    parts: int
    orphans: int
    refused: str = ""


async def sweep(
    database: Database,
    folder: Path,
    *,
    deadline: float,
    older_than_s: float = OLDER_THAN_S,
    settle_s: float = SETTLE_S,
) -> Swept:
    """Remove stale temporary files and orphans. Safe beside uploads, and to repeat.

    An orphan is one at two looks, `settle_s` apart. A database that knows hardly any of many files is
    taken for the wrong one, and nothing of them is removed.
    """
    before = time.time() - older_than_s
    parts = await asyncio.to_thread(_remove_stale_parts, folder, before)
    await asyncio.to_thread(_remove_set_aside, folder, time.time() - ASIDE_S)
    names = await asyncio.to_thread(lambda: list(_published(folder, before)))
    orphans = await _without_row(database, names, deadline)
    if len(orphans) > max(_FEW, len(names) // 2):
        reason = f"{len(orphans)} of {len(names)} blobs have no row: is this their database?"
        _log.critical("%s", reason)
        return Swept(len(names), parts, 0, reason)
    if orphans:
        await asyncio.sleep(settle_s)
        orphans = await _without_row(database, orphans, deadline)
    for name in orphans:
        await asyncio.to_thread(files.remove, folder, name)
    if parts or orphans:
        _log.warning("removed %d stale uploads and %d orphaned blobs", parts, len(orphans))
    return Swept(len(names), parts, len(orphans))


async def _without_row(database: Database, names: Sequence[str], deadline: float) -> list[str]:
    found: list[str] = []
    for start in range(0, len(names), _BATCH):
        batch = list(names[start : start + _BATCH])
        async with database.transaction(deadline=deadline, read_only=True) as connection:
            cursor = await connection.execute("SELECT records.blobs_known(%s)", (batch,))
            known = {row[0] for row in await cursor.fetchall()}
        found += [name for name in batch if name not in known]
    return found


def _remove_stale_parts(folder: Path, before: float) -> int:
    removed = 0
    for path in (folder / PARTS).glob(f"*{SUFFIX}"):
        try:
            old = path.stat().st_mtime < before
        except FileNotFoundError:
            continue
        if old and not is_written(path):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _remove_set_aside(folder: Path, before: float) -> None:
    for path in (folder / files.CORRUPT).glob("*"):
        if path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _published(folder: Path, before: float) -> Iterator[str]:
    """Names of the blobs last written before a moment; other files are not ours to judge."""
    for first in _folders(folder):
        for second in _folders(Path(first)):
            with os.scandir(second) as entries:
                for entry in entries:
                    named = len(entry.name) == files.NAME_LENGTH
                    if named and entry.stat().st_mtime < before:
                        yield entry.name


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.path for entry in entries if entry.is_dir() and len(entry.name) == 2
            )
    except FileNotFoundError:
        return []
