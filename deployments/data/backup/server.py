"""What PostgreSQL is told so that it archives: for the cell's own server and for Patroni alike."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from configs.reader import PROJECT_ROOT
from deployments.data import postgres_account
from deployments.data.backup import settings


def backup_settings(path: Path) -> dict[str, str]:
    """Server parameters for the settings file at `path`. Raises `BackupError`.

    The server's account must be able to run this Python and to read the project, the settings file
    and `backup_writer.json`; `let_archiver_in` sees to that where it is `medrec-postgres`.
    """
    every_s = settings.read(path).wal_every_s
    return {
        "archive_mode": "on",
        "archive_command": f"{_program('archive', path)} %p %f",
        "archive_timeout": f"{every_s}s",
        "wal_level": "replica",
    }


def restore_command(path: Path) -> str:
    """`restore_command` for the settings file at `path`, which must lead to `backup_key.json`."""
    return f"{_program('fetch', path)} %f %p"


def let_archiver_in(path: Path) -> None:
    """Let the separate account, where there is one, read what its archiver needs."""
    found = settings.read(path)
    writer = Path(found.secrets) / "backup_writer.json"
    for file in (path, writer):
        postgres_account.give(file)
        postgres_account.let_through(file)
    let_python_through(path)


def let_python_through(path: Path) -> None:
    """Let it run this Python with the project's code, and reach `path`."""
    for file in (Path(sys.executable), Path(sys.executable).resolve(), Path(__file__), path):
        postgres_account.let_through(file)


def _program(name: str, path: Path) -> str:
    # The server stands in its data folder, and has nothing of our environment.
    python = shlex.join([sys.executable, "-m", f"deployments.data.backup.{name}", str(path)])
    root = shlex.quote(str(PROJECT_ROOT))
    return f"PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1 {python}".replace("%", "%%")
