"""A restored PostgreSQL on a socket of its own: it replays WAL to a moment, and archives nothing."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from deployments.data import postgres_account
from deployments.data.backup import keys, server
from deployments.data.backup.errors import BackupError
from deployments.data.backup.settings import FILE, BackupSettings, credentials
from deployments.data.postgres import OWNER, LocalServer

DEADLINE_S = 4 * 3600.0
_POLL_S = 0.05
_END_S = 10.0
_REFUSED = "the database system is"
_NOT_REACHED = "recovery ended before configured recovery target was reached"


@contextmanager
def replayed(settings: BackupSettings, data: Path, at: datetime | None) -> Iterator[str]:
    """Replay to `at`, or to the archive's end, and yield the owner's DSN of the running server.

    Raises `BackupError` that quotes the server's log.
    """
    with (
        _aside(data) as aside,
        tempfile.TemporaryDirectory(prefix="fetch-", dir=data.parent) as name,
    ):
        fetching = _fetch_settings(settings, Path(name))
        options = {
            "restore_command": server.restore_command(fetching),
            # Nobody may look before the moment is reached.
            "hot_standby": "off",
        }
        variables = credentials(settings)
        if at is None or not aside.recovers({**options, **_target(at)}, variables):
            # No change came after the moment: the archive's end is how it was then.
            aside.recovers(options, variables)
        yield aside.server.dsn(OWNER)


@contextmanager
def running(data: Path) -> Iterator[str]:
    """The restored server while the block runs; yields the owner's DSN."""
    with _aside(data) as aside:
        aside.server.wait_ready(aside.start({}, {}))
        yield aside.server.dsn(OWNER)


@contextmanager
def _aside(data: Path) -> Iterator[_Aside]:
    sockets = Path(tempfile.mkdtemp(prefix="medrec-restore-"))
    aside = _Aside(LocalServer(data=data, sockets=sockets, log=data.parent / "restore.log"))
    try:
        yield aside
    finally:
        left = aside.server.stop()
        aside.reap()
        shutil.rmtree(sockets, ignore_errors=True)
        if left:
            raise BackupError(f"processes of the restored PostgreSQL are left: {left}")


@dataclass
class _Aside:
    """A server on a socket of its own, and its process while there is one."""

    server: LocalServer
    process: subprocess.Popen[bytes] | None = None

    def start(
        self, options: Mapping[str, str], variables: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start it; an earlier process has ended."""
        self.reap()
        self.process = self.server.start({**_apart(self.server), **options}, variables)
        return self.process

    def recovers(self, options: Mapping[str, str], variables: Mapping[str, str]) -> bool:
        """Start it and wait for the end of recovery. False: WAL ended before the moment."""
        told_before = self.server.log.stat().st_size if self.server.log.exists() else 0
        process = self.start(options, variables)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return _ended(self.server.log, told_before)
            if _is_open(self.server):
                return True
            time.sleep(_POLL_S)
        raise BackupError(f"recovery did not end in {DEADLINE_S / 3600:g} h")

    def reap(self) -> None:
        """Take notice of the end of its process."""
        if self.process is not None:
            self.process.wait(_END_S)


def _target(at: datetime) -> dict[str, str]:
    return {
        "recovery_target_time": at.astimezone(UTC).isoformat(" "),
        "recovery_target_action": "promote",
    }


def _is_open(found: LocalServer) -> bool:
    try:
        with psycopg.connect(
            found.dsn(OWNER, "postgres"), connect_timeout=2, autocommit=True
        ) as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            return row is not None and not row[0]
    except psycopg.OperationalError:
        return False


def _ended(log: Path, told_before: int) -> bool:
    told_now = log.read_bytes()[told_before:]
    lines = told_now.decode("utf-8", "replace").splitlines()
    if any(_NOT_REACHED in line for line in lines):
        return False
    # Our own restore_command's words say more than what PostgreSQL makes of its exit status.
    told = [line for line in lines if line.startswith("medrec backup:")]
    told = told or [line for line in lines if "FATAL" in line and _REFUSED not in line]
    raise BackupError(f"recovery failed: {told[0] if told else f'see {log}'}")


def _fetch_settings(settings: BackupSettings, folder: Path) -> Path:
    """Settings and key for `restore_command`, which runs under PostgreSQL's account."""
    spool, path, key = folder / "spool", folder / FILE, folder / keys.FILE
    spool.mkdir(mode=0o700)
    own = replace(settings, secrets=str(folder), spool=str(spool))
    for file, data in (
        (key, keys.read(Path(settings.secrets)).dump()),
        (path, own.dump()),
    ):
        file.touch(mode=0o600)
        file.write_bytes(data)
    for place in (folder, spool, key, path):
        postgres_account.give(place)
    server.let_python_through(path)
    return path


def _apart(found: LocalServer) -> dict[str, str]:
    """Settings that keep the server to itself, whatever the site's own in its folder say."""
    access, empty = found.sockets / "access.conf", found.sockets / "empty.conf"
    access.write_text("local all all trust\n", encoding="ascii")
    empty.write_text("", encoding="ascii")
    for path in (access, empty):
        postgres_account.give(path)
    return {
        "config_file": str(empty),
        "hba_file": str(access),
        "ident_file": str(empty),
        "archive_mode": "off",
        "synchronous_standby_names": "",
        "primary_conninfo": "",
        "primary_slot_name": "",
        "shared_preload_libraries": "",
        "ssl": "off",
        # A restored subscription must not go on by itself.
        "max_logical_replication_workers": "0",
        "recovery_target_timeline": "latest",
    }
