"""A small site to be backed up: a PostgreSQL that archives, blobs, secrets and configs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from deployments.data import postgres_account
from deployments.data.backup import keys, server, settings, store
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.vault import Vault
from deployments.data.blobs.files import path_of
from deployments.data.postgres import OWNER, LocalServer

WITHIN_S = 20.0


@dataclass
class World:
    """The site, and where its backups go."""

    folder: Path
    settings: BackupSettings
    server: LocalServer
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        """The settings file."""
        return self.folder / settings.FILE

    @property
    def dsn(self) -> str:
        """The owner's."""
        return self.server.dsn(OWNER)

    @property
    def vault(self) -> Vault:
        """With the key that opens."""
        return Vault.whole(self.settings)

    def use(self, **changes: Any) -> None:
        """Change the settings, on disk as well."""
        self.settings = replace(self.settings, **changes)
        self.path.write_bytes(self.settings.dump())
        server.let_archiver_in(self.path)

    def start(self) -> None:
        """Start PostgreSQL as a cell does, without waiting for the disk."""
        self.server.initialise()
        others = {**server.backup_settings(self.path), "fsync": "off", "max_wal_size": "64MB"}
        self.process = self.server.start(others, settings.credentials(self.settings))
        self.server.wait_ready(self.process)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            assert not self.server.stop()
            self.process.wait(10)
        self.server.discard()

    def execute(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """A statement of the owner's, committed."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def write(self, text: str) -> None:
        """One row, committed."""
        self.execute("CREATE TABLE IF NOT EXISTS public.note (text text)")
        self.execute("INSERT INTO public.note VALUES (%s)", text)

    def now(self) -> datetime:
        """The server's clock."""
        moment: datetime = self.execute("SELECT clock_timestamp()")[0][0]
        return moment

    def archive(self) -> str:
        """Close the present WAL segment and wait until it is archived; returns its name."""
        # An empty segment is not closed; this is no transaction, so no change.
        self.execute("SELECT pg_logical_emit_message(false, 'test', 'x')")
        name: str = self.execute("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0][0]
        self.execute("SELECT pg_switch_wal()")
        self.wait(lambda: (self.archiver()["last_archived_wal"] or "") >= name)
        return name

    def archiver(self) -> dict[str, Any]:
        """PostgreSQL's own account of it."""
        columns = "archived_count, failed_count, last_archived_wal, last_failed_wal"
        row = self.execute(f"SELECT {columns} FROM pg_stat_archiver")[0]
        return dict(zip(columns.split(", "), row, strict=True))

    def wait(self, true: Any, within_s: float = WITHIN_S) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + within_s
        while not true():
            assert time.monotonic() < deadline, self.server.log.read_text()[-2000:]
            time.sleep(0.05)

    def add_blob(self, size: int) -> str:
        """A blob's file; returns its name."""
        content = os.urandom(size)
        name = hashlib.sha256(content).hexdigest()
        path = path_of(Path(self.settings.blobs), name)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return name

    def objects(self) -> list[Path]:
        """Every file of a backup in a folder."""
        return sorted(path for path in Path(self.settings.to).rglob("*") if path.is_file())


def world(folder: Path, **other: Any) -> World:
    """A site below `folder`, its backups in `folder/backups` unless `other` says where."""
    folder.chmod(0o711)
    home = folder / "home"
    secrets, blobs, sockets = home / "secrets", home / "blobs", folder / "s"
    for made in (home, secrets, blobs):
        made.mkdir(mode=0o700)
    config = folder / "site.yaml"
    config.write_text("name: here\n")
    server_ = LocalServer(home / "postgres", sockets, folder / "postgres.log")
    found = BackupSettings(
        to=str(folder / "backups"),
        site="here",
        secrets=str(secrets),
        dsn=server_.dsn(OWNER),
        blobs=str(blobs),
        configs=(str(config),),
    )
    made_ = World(folder, replace(found, **other), server_)
    keys.write(secrets, keys.new())
    store.prepare(made_.settings)
    made_.use()
    postgres_account.let_through(made_.path)
    return made_
