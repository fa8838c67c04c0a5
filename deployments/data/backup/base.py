"""A base backup: `pg_basebackup` as one tar stream, sealed on its way, read along for what it tells.

WAL comes from the archive alone: the copy is good once the archive has it up to the copy's end.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any

import psycopg
from psycopg import sql

from deployments.data.backup import wal
from deployments.data.backup.errors import BackupError
from deployments.data.backup.manifest import Figures
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Stream, Vault
from deployments.data.postgres import program

# Only ever added to: a restored database has them all, or more.
APPEND_ONLY = ("audit.entry", "records.history", "records.blob")
ARCHIVED_WITHIN_S = 120.0
_POLL_S = 0.2
_READ = 2**20
_MOST_NOTES = 256 * 2**20
_END_S = 60.0


@dataclass(frozen=True, slots=True)
class Source:
    """The server that is copied, and the cluster that it belongs to."""

    dsn: str
    system: str
    version: int
    segment_bytes: int
    is_standby: bool


@dataclass(frozen=True, slots=True)
class Copy:
    """What was copied, from where to where in the WAL."""

    stream: Stream
    timeline: int
    start_lsn: str
    stop_lsn: str


def source(settings: BackupSettings) -> Source:
    """The host's own server if it is a standby, else the primary. Raises `BackupError`."""
    if settings.base_dsn:
        try:
            if (found := _asked(settings.base_dsn)).is_standby:
                return found
        except psycopg.OperationalError:
            pass  # a primary that works is better than no backup
    try:
        return _asked(settings.dsn)
    except psycopg.OperationalError as error:
        raise BackupError(f"the database cannot be reached: {type(error).__name__}") from None


def _asked(dsn: str) -> Source:
    with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
        row = connection.execute(
            "SELECT system_identifier::text, pg_is_in_recovery(),"
            " pg_size_bytes(current_setting('wal_segment_size')) FROM pg_control_system()"
        ).fetchone()
        assert row is not None
        return Source(dsn, row[0], connection.info.server_version, row[2], row[1])


def now_and_figures(dsn: str) -> tuple[datetime, Figures]:
    """The server's time and figures, in one view. Raises `BackupError` if it archives nothing."""
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        if _one(connection, "SHOW archive_mode") == "off":
            raise BackupError("the database archives no WAL: start it with the backup's settings")
        rows = {
            table: int(_one(connection, f"SELECT count(*) FROM {table}"))
            for table in APPEND_ONLY
            if _one(connection, f"SELECT to_regclass('{table}')") is not None
        }
        head = (0, b"")
        if "audit.entry" in rows:
            found = connection.execute("SELECT seq, hash FROM audit.head").fetchone()
            head = (found[0], bytes(found[1])) if found else head
        moment: datetime = _one(connection, "SELECT clock_timestamp()")
    return moment, Figures(head[0], head[1].hex(), rows)


def server_time(dsn: str) -> datetime:
    """The primary's clock."""
    with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
        moment: datetime = _one(connection, "SELECT clock_timestamp()")
        return moment


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(sql.SQL(query)).fetchone()
    return None if row is None else row[0]


def copy(vault: Vault, found: Source, name: str) -> Copy:
    """Copy the server's data folder into the stream `name`. Raises `BackupError`."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [
                *(str(program("pg_basebackup")), "--dbname", found.dsn, "--pgdata=-"),
                *("--format=tar", "--wal-method=none", "--checkpoint=fast", "--no-password"),
                *("--manifest-checksums=SHA256", "--label=medrec"),
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            bufsize=0,
        )
        assert process.stdout is not None
        reading = _ReadAlong(process.stdout)
        try:
            stream = vault.write_stream(name, reading.pieces())
            status = process.wait(_END_S)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status != 0:
            errors.seek(0)
            told = errors.read(4096).decode("utf-8", "replace").strip().splitlines()
            raise BackupError(f"pg_basebackup failed: {told[-1] if told else status}")
    return reading.copy(stream)


class _ReadAlong:
    """Passes a tar stream on and keeps the two files in it that say what the copy is."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._kept: dict[str, bytes] = {}

    def pieces(self) -> Iterator[bytes]:
        """The stream as it comes; a thread reads the same bytes as a tar file."""
        read_end, write_end = _pipe()
        thread = threading.Thread(target=self._read, args=(read_end,), daemon=True)
        thread.start()
        try:
            with write_end:
                while piece := self._read_on():
                    write_end.write(piece)
                    yield piece
        finally:
            thread.join(_END_S)

    def _read_on(self) -> bytes:
        """The next bytes. The server waits at the end for its archive, without a limit of its own."""
        ready, _, _ = select.select([self._source], [], [], ARCHIVED_WITHIN_S)
        if not ready:
            reason = f"pg_basebackup has said nothing for {ARCHIVED_WITHIN_S:g} s"
            raise BackupError(f"{reason}: is WAL archived? See PostgreSQL's log")
        return self._source.read(_READ)

    def _read(self, source: IO[bytes]) -> None:
        with source:
            try:
                with tarfile.open(fileobj=source, mode="r|", bufsize=_READ) as tar:
                    for member in tar:
                        wanted = member.name in ("backup_label", "backup_manifest")
                        if wanted and member.size < _MOST_NOTES:
                            file = tar.extractfile(member)
                            self._kept[member.name] = file.read() if file else b""
            except tarfile.TarError:
                pass  # cut off: pg_basebackup's own status tells
            while source.read(_READ):
                continue

    def copy(self, stream: Stream) -> Copy:
        try:
            label = self._kept["backup_label"].decode()
            lines = dict(line.split(": ", 1) for line in label.splitlines() if ": " in line)
            (written,) = json.loads(self._kept["backup_manifest"])["WAL-Ranges"][-1:]
            return Copy(
                stream,
                timeline=int(written["Timeline"]),
                start_lsn=lines["START WAL LOCATION"].split()[0],
                stop_lsn=str(written["End-LSN"]),
            )
        except (KeyError, ValueError, IndexError):
            raise BackupError("pg_basebackup's copy does not say what it is") from None


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    read_end, write_end = os.pipe()
    return os.fdopen(read_end, "rb"), os.fdopen(write_end, "wb", buffering=0)


def await_archived(
    vault: Vault, dsn: str, system: str, made: Copy, size: int, *, within_s: float
) -> None:
    """Wait until the archive holds the copy's WAL up to its end. Raises `BackupError`."""
    last = wal.segment_of(wal.lsn(made.stop_lsn) - 1, size)
    name = wal.segment_name(made.timeline, last, size)
    deadline = time.monotonic() + within_s
    with psycopg.connect(dsn, connect_timeout=5, autocommit=True) as connection:
        # The copy may have begun on a timeline that a failover has ended since: the histories tell.
        keep_history(vault, connection, system)
        if wal.segment_of(_position(connection), size) == last:
            connection.execute("SELECT pg_switch_wal()")
        while not vault.has(wal.object_name(system, name)):
            if time.monotonic() > deadline:
                raise BackupError(
                    f"PostgreSQL has not archived {name} within {within_s:g} s: see its log for why"
                )
            time.sleep(_POLL_S)


def keep_history(vault: Vault, connection: psycopg.Connection[Any], system: str) -> None:
    """Archive the present timeline's history, which a server restored without archiving has not."""
    timeline = int(_one(connection, "SELECT timeline_id FROM pg_control_checkpoint()"))
    if timeline == 1:
        return
    file = f"{timeline:08X}.history"
    if not vault.has(wal.object_name(system, file)):
        content = _one(connection, f"SELECT pg_read_binary_file('pg_wal/{file}', true)")
        if content is not None:
            vault.create(wal.object_name(system, file), bytes(content))


def _position(connection: psycopg.Connection[Any]) -> int:
    return wal.lsn(_one(connection, "SELECT pg_current_wal_insert_lsn()::text"))
