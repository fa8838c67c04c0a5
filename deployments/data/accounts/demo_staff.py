"""The demo's hospital and the people who work there, as resources that users are linked to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from configs.args import RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.audit.operator import operator
from deployments.data.database import Database
from deployments.data.places import Places
from deployments.data.principal import Caller, Principal, Role
from deployments.data.records.reading import Reader
from deployments.data.records.trail import Trail
from deployments.data.records.writes import Writes
from deployments.data.records.writing import Writer
from deployments.data.seal.sealer import Sealer

DEADLINE_S = 30.0
ORGANIZATION = {"resourceType": "Organization", "active": True, "name": "Hospital de Demonstração"}


@dataclass(frozen=True, slots=True)
class Member:
    """An invented member of staff; the id is the same in every demo."""

    id: str
    family: str
    given: str

    def resource(self) -> dict[str, Any]:
        """The Practitioner."""
        name = [{"family": self.family, "given": [self.given]}]
        return {"resourceType": "Practitioner", "active": True, "name": name}


def _member(role: Role, family: str, given: str) -> Member:
    return Member(str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:medrec:demo:{role}")), family, given)


STAFF: Mapping[Role, Member] = {
    "physician": _member("physician", "Demonstração", "Médica"),
    "nurse": _member("nurse", "Demonstração", "Enfermeiro"),
}


async def ensure_staff(places: Places, args: RecordsArgs) -> None:
    """Write the organisation and its staff, as far as they are not there. Raises `DataError`."""
    database = Database(places.dsn, connections=2, name="medrec-demo")
    audit = Audit(database, places.journal)
    await database.open()
    try:
        await audit.start()
        await _write(database, audit, Sealer.load(places.secrets), args)
    finally:
        await audit.close()
        await database.close()


async def _write(database: Database, audit: Audit, sealer: Sealer, args: RecordsArgs) -> None:
    caller = _caller(args.organization)
    reader, writer = Reader(sealer), Writer(sealer, args)
    writes = Writes(writer, reader, Trail(audit, enabled=True), sealer)
    wanted = {("Organization", args.organization): ORGANIZATION} | {
        ("Practitioner", member.id): member.resource() for member in STAFF.values()
    }
    staged: list[UUID] = []
    async with database.transaction(
        deadline=caller.deadline, organization=args.organization, compartment="all"
    ) as connection:
        cursor = await connection.execute(
            "SELECT type, id FROM records.resource WHERE type IN ('Organization', 'Practitioner')"
        )
        there = {(row[0], row[1]) for row in await cursor.fetchall()}
        for (type, id), resource in wanted.items():
            if (type, id) not in there:
                draft = writes.drafted(type, dict(resource), id=id)
                await writes.create(
                    connection,
                    staged,
                    caller,
                    draft,
                    if_none_exist=None,
                    fingerprint=None,
                    beside=None,
                    action="create",
                    details={},
                )
    await audit.settle(staged, deadline=caller.deadline)


def _caller(organization: str) -> Caller:
    """The operator at this terminal, with the right to write what a demo needs."""
    base = operator(organization, deadline_s=DEADLINE_S)
    who = base.principal
    principal = Principal(
        id=who.id,
        kind=who.kind,
        role=who.role,
        organization=organization,
        scopes=frozenset({"system/*.cruds"}),
    )
    return Caller(
        principal, base.request_id, base.address, time.monotonic() + DEADLINE_S, base.device
    )
