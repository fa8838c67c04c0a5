"""Records on a real PostgreSQL, with the real sealer and the real audit chain."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest

from configs.args import RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.principal import Caller
from deployments.data.records.store import Records
from deployments.data.seal import keys
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.records import people


@pytest.fixture
def sealer(tmp_path: Path) -> Sealer:
    keys.create(tmp_path / "secrets")
    return Sealer.load(tmp_path / "secrets")


@pytest.fixture
async def audit(database: Database, tmp_path: Path) -> AsyncIterator[Audit]:
    folder = tmp_path / "journal"
    folder.mkdir(mode=0o700)
    made = Audit(database, folder)
    await made.start()
    yield made
    await made.close()


@pytest.fixture
def records(database: Database, sealer: Sealer, audit: Audit) -> Records:
    return Records(database, sealer, audit, RecordsArgs())


@dataclass
class House:
    """A hospital: its records, a machine that may do everything, and two physicians."""

    records: Records
    machine: Caller
    physician: Caller
    colleague: Caller

    def __post_init__(self) -> None:
        assert self.physician.principal.practitioner
        assert self.colleague.principal.practitioner
        self.physician_id = self.physician.principal.practitioner
        self.colleague_id = self.colleague.principal.practitioner

    async def patient(self, by: Caller | None = None, **more: Any) -> str:
        """The id of a new patient; the physician's own unless somebody else makes it."""
        who = people.again(by or self.physician)
        written = await self.records.create(who, "Patient", people.patient(**more))
        return written.stored.id


@pytest.fixture
async def house(records: Records) -> House:
    machine = people.caller("service")
    ids = []
    for family in ("Andrade", "Barros"):
        made = await records.create(machine, "Practitioner", people.practitioner(family))
        ids.append(made.stored.id)
    return House(
        records,
        machine,
        people.caller(practitioner=ids[0]),
        people.caller(practitioner=ids[1]),
    )


@dataclass
class Owner:
    """The database as its owner sees it, past every policy."""

    dsn: str

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            found = connection.execute(statement.encode(), values)
            return found.fetchall() if found.description else []

    def entries(self, action: str | None = None) -> list[dict[str, Any]]:
        """The chain's entries in order, of one action if it is given."""
        found = [
            orjson.loads(bytes(body) if isinstance(body, memoryview) else body)
            for (body,) in self.rows("SELECT body FROM audit.entry ORDER BY seq")
        ]
        return [entry for entry in found if action in (None, entry["action"])]


@pytest.fixture
def owner(dsns: tuple[str, str]) -> Owner:
    return Owner(dsns[1])
