"""PostgreSQL's restore_command: `python -m deployments.data.backup.fetch SETTINGS %f %p`.

Exit status 1 says that there is no such file: recovery ends there. A file that is damaged, cannot
be asked for, or is missing while later ones are there must not look like that: 200 stops recovery.
With a `spool` folder in the settings the next segments are fetched along with the one asked for.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.data.backup import settings

if TYPE_CHECKING:
    from deployments.data.backup.vault import Vault

ABSENT, FAILED = 1, 200
_AHEAD = 16
_AT_A_TIME = 4


def main(words: Sequence[str]) -> int:
    """Fetch one file. Returns the exit status; a failure is told in the server's log."""
    from deployments.data.backup.errors import BackupError, NotInBackup

    try:
        path, name, target = words
    except ValueError:
        print("usage: fetch SETTINGS FILE PATH", file=sys.stderr)
        return FAILED
    try:
        fetch(Path(path), name, Path(target))
    except NotInBackup:
        return ABSENT
    except (BackupError, OSError) as error:
        print(f"medrec backup: {name} is not restored: {error}", file=sys.stderr)
        return FAILED
    return 0


def fetch(at: Path, name: str, target: Path) -> None:
    """Put a WAL file where PostgreSQL wants it. Raises `NotInBackup`, `BackupError`, `OSError`."""
    found = settings.read(at)
    spool = Path(found.spool) if found.spool else None
    if spool is not None and (spool / name).exists():
        os.replace(spool / name, target)
        return
    # Only now what costs time to import: with a spool most calls end above.
    from deployments.data.backup import wal
    from deployments.data.backup.errors import BackupError, NotInBackup
    from deployments.data.backup.vault import Vault

    vault = Vault.whole(found)
    wanted = wal.object_name(wal.system_id(Path()), name)
    folder = wanted.rpartition("/")[0]
    later = (
        entry.name
        for entry in vault.entries(folder, after=wanted)
        if wal.is_segment(entry.name.rpartition("/")[2])
    )
    try:
        plain = vault.read(wanted)
    except NotInBackup:
        if wal.is_segment(name) and (there := next(later, None)):
            raise BackupError(
                f"it is missing, but {there.rpartition('/')[2]} is there: the archive has a hole"
            ) from None
        raise
    if spool is not None and wal.is_segment(name):
        _fetch_ahead(vault, spool, itertools.islice(later, _AHEAD))
    target.write_bytes(plain)


def _fetch_ahead(vault: Vault, spool: Path, names: itertools.islice[str]) -> None:
    """The next segments into the spool, in which nothing older stays.

    One that cannot be had is left out: whether it is needed shows when it is asked for.
    """
    from deployments.data.backup.errors import BackupError

    for old in spool.iterdir():
        old.unlink()

    def one(name: str) -> None:
        draft = spool / f".{name.rpartition('/')[2]}"
        with suppress(BackupError):
            draft.write_bytes(vault.read(name))
            draft.replace(spool / name.rpartition("/")[2])

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(one, names))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
