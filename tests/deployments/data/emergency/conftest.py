"""A site that publishes and an emergency cell that subscribes: two PostgreSQLs of the tests' own."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from deployments.cell.state import Home
from deployments.data import postgres
from deployments.data.emergency.publisher import ROLE
from deployments.data.migrate import migrate
from deployments.data.postgres import APPLICATION, OWNER, LocalServer
from tests.conftest import memory_folder
from tests.deployments.data.audit.conftest import audit
from tests.deployments.data.records.conftest import owner, records, sealer

__all__ = ["audit", "owner", "records", "sealer"]


@dataclass
class Side:
    """One server, started; its database is migrated."""

    server: LocalServer
    process: subprocess.Popen[bytes]

    @property
    def dsn(self) -> str:
        return self.server.dsn(APPLICATION)

    @property
    def owner_dsn(self) -> str:
        return self.server.dsn(OWNER)

    @property
    def copy_dsn(self) -> str:
        return self.server.dsn(ROLE)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """As the owner."""
        with psycopg.connect(self.owner_dsn, autocommit=True) as connection:
            found = connection.execute(query.encode(), values)
            return found.fetchall() if found.description else []

    def until(self, query: str, wanted: object, seconds: float = 20.0) -> None:
        """Wait until the first value of a query is what is wanted."""
        wait_for(lambda: self.rows(query)[0][0] == wanted, f"{query} is {wanted}", seconds)


def wait_for(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@contextmanager
def side(folder: Path) -> Iterator[Side]:
    """A server as a member of a site runs it."""
    home = Home(folder.resolve())
    home.prepare()
    server = postgres.local(home)
    server.initialise()
    process = server.start(
        {"fsync": "off", "wal_level": "logical", "max_slot_wal_keep_size": "32MB"}
    )
    try:
        server.wait_ready(process)
        migrate(server.dsn(OWNER))
        yield Side(server, process)
    finally:
        server.stop()
        process.wait(10)
        server.discard()


@pytest.fixture(scope="module")
def two_sides() -> Iterator[tuple[Side, Side]]:
    """The site and the cloud."""
    with (
        tempfile.TemporaryDirectory(prefix="medrec-", dir=memory_folder()) as folder,
        side(Path(folder) / "site") as site,
        side(Path(folder) / "cloud") as cloud,
    ):
        yield site, cloud
