"""PostgreSQL's archive_command: `python -m deployments.data.backup.archive SETTINGS %p %f`.

Exit status 0 says that the file is safe, once and for all; after anything else PostgreSQL keeps the
file and comes again. Again with the same content is success, with another it is refused. Runs in
the data folder, under the server's account, for every file: it imports little.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.data.backup import settings, wal
from deployments.data.backup.errors import BackupError
from deployments.data.backup.vault import Vault


def main(words: Sequence[str]) -> int:
    """Archive one file. Returns the exit status; a failure is told in the server's log."""
    try:
        path, file, name = words
    except ValueError:
        print("usage: archive SETTINGS PATH FILE", file=sys.stderr)
        return 1
    try:
        archive(Path(path), Path(file), name)
    except BackupError as error:
        print(f"medrec backup: {name} is not archived: {error}", file=sys.stderr)
        return 1
    return 0


def archive(at: Path, file: Path, name: str) -> None:
    """Put a WAL file of the server whose data folder we stand in into the vault.

    Raises `BackupError`.
    """
    vault = Vault.for_writing(settings.read(at))
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BackupError(f"it cannot be read: {error.strerror}") from None
    vault.create(wal.object_name(wal.system_id(Path()), name), data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
