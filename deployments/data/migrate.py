"""Brings a database to the code's revision, under an advisory lock: two starters never mix.

All revisions of one run are one transaction. There is no way back down: a newer database is left as
it is, and refused unless it says that this code may work on it.
"""

from __future__ import annotations

import time
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from deployments.cell.state import CellError

LEAST_SERVER = 160_000
# Session-level advisory lock; any constant of our own, the same in every version.
LOCK = 6_374_120_003
WAIT_S = 120.0
_LOCK_TIMEOUT_S = 30
_STATEMENT_TIMEOUT_S = 3600
_POLL_S = 0.25
_FOLDER = Path(__file__).parent / "migrations"


class MigrationError(CellError):
    """The operator can act on it: the database cannot be brought to the code's revision."""


def migrate(owner_dsn: str, *, wait_s: float = WAIT_S) -> str:
    """Run what is missing, as the owner's role. Returns the revision. Raises `MigrationError`.

    Whoever comes second waits up to `wait_s` seconds for the first, and then finds nothing to do.
    """
    try:
        with psycopg.connect(owner_dsn, autocommit=True, connect_timeout=10) as guard:
            _check_server(guard)
            _lock(guard, wait_s)
            newer = _newer(guard)
            return newer if newer is not None else _upgrade(owner_dsn)
    except psycopg.OperationalError as error:
        raise MigrationError(f"the database cannot be reached to migrate it: {error}") from error


def head() -> str:
    """The revision that the code is written for."""
    found: str | None = _scripts().get_current_head()
    assert found is not None
    return found


def current(connection: psycopg.Connection) -> str | None:
    """The database's revision; None if nothing was ever migrated."""
    row = connection.execute("SELECT to_regclass('public.alembic_version')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT version_num FROM public.alembic_version").fetchone()
    return row[0] if row else None


def _check_server(connection: psycopg.Connection) -> None:
    version = connection.info.server_version
    if version < LEAST_SERVER:
        raise MigrationError(f"PostgreSQL {version // 10_000} is too old: 16 or later is needed")
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    if row is not None and row[0]:
        raise MigrationError("the owner's DSN leads to a standby, which cannot be migrated")


def _newer(connection: psycopg.Connection) -> str | None:
    """The revision of a database that newer code has migrated, if this code may still work on it.

    During an upgrade one cell is newer than the other. Raises `MigrationError` where the newer schema
    is nothing for this code; None: the database is not newer.
    """
    found, scripts = current(connection), _scripts()
    known = {script.revision for script in scripts.walk_revisions()}
    if found is None or found in known:
        return None
    if _least_code(connection) in known:
        return found
    raise MigrationError(
        f"the database is at revision {found}, newer than this code ({scripts.get_current_head()}):"
        " start the version that it belongs to"
    )


def _least_code(connection: psycopg.Connection) -> str | None:
    """The oldest revision whose code may work on this schema, as its migrations say."""
    row = connection.execute("SELECT to_regclass('public.medrec_least_code')").fetchone()
    if row is None or row[0] is None:
        return None
    row = connection.execute("SELECT revision FROM public.medrec_least_code").fetchone()
    return row[0] if row else None


def _lock(connection: psycopg.Connection, wait_s: float) -> None:
    """Hold the lock for as long as the connection lives."""
    deadline = time.monotonic() + wait_s
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > deadline:
            raise MigrationError(f"another process has been migrating for {wait_s:g} s")
        time.sleep(_POLL_S)


def _upgrade(owner_dsn: str) -> str:
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(owner_dsn, connect_timeout=10),
        poolclass=NullPool,
    )
    try:
        with engine.connect() as connection:
            # A table in use must not stop everyone behind a migration that waits for it.
            connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT_S}s'")
            connection.exec_driver_sql(f"SET statement_timeout = '{_STATEMENT_TIMEOUT_S}s'")
            connection.commit()
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except DBAPIError as error:
        raise MigrationError(f"a migration failed: {error.orig}") from error
    finally:
        engine.dispose()
    return head()


def _config() -> Config:
    config = Config()
    # Alembic reads `%` as the beginning of an interpolation.
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
