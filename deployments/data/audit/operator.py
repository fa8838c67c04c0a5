"""Operators' acts on the command line, on record before the command reports success.

    async with operator_audit(places, organization) as operator:
        ...                                                 # the act
        await operator.record("key-change", resource="Key/…", act="create")
        print("done")                                       # only now

or, where no loop runs: `record(places, "seal", organization=…, act="rotate", rows=12)`. Both need the
database and raise `StoreUnavailable` or `DeadlineExceeded` without it: then the command must fail,
and say that its act is not on record. An act inside a transaction of its own is staged:
`staged = [await operator.stage(connection, "erase", …)]`, commit, `await operator.settle(staged)`.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import Outcome, entry_of
from deployments.data.database import Database
from deployments.data.places import Places
from deployments.data.principal import Caller, Principal

DEADLINE_S = 10.0


def operator(organization: str, *, deadline_s: float = DEADLINE_S) -> Caller:
    """The person at this terminal, by the name that the operating system knows."""
    principal = Principal(
        id=f"operator:{user()}",
        kind="operator",
        role="admin",
        organization=organization,
        scopes=frozenset({"system/AuditEvent.rs", "admin", "audit:verify"}),
    )
    return Caller(
        principal=principal,
        request_id=f"cli-{uuid.uuid4()}",
        address="local",
        deadline=time.monotonic() + deadline_s,
        device="medrec",
        purpose="HOPERAT",
    )


def user() -> str:
    """The operating system's name of who runs this process; behind `sudo`, of who called it."""
    behind = os.environ.get("SUDO_USER", "") if os.geteuid() == 0 else ""
    try:
        return behind or getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class Operator:
    """An operator at work: who it is, and the way into the chain. `database` is the application's."""

    caller: Caller
    audit: Audit
    database: Database

    async def record(
        self,
        action: str,
        outcome: Outcome = "success",
        *,
        patient: str | None = None,
        resource: str | None = None,
        **details: Any,
    ) -> None:
        """Put an act on record, ten seconds from now at most."""
        entry = entry_of(
            self.caller, action, outcome, patient=patient, resource=resource, **details
        )
        await self.audit.record(entry, deadline=time.monotonic() + DEADLINE_S)

    async def stage(
        self,
        connection: psycopg.AsyncConnection[Any],
        action: str,
        outcome: Outcome = "success",
        *,
        patient: str | None = None,
        resource: str | None = None,
        **details: Any,
    ) -> UUID:
        """Put an act on record with the transaction that does it; `settle` after its commit."""
        entry = entry_of(
            self.caller, action, outcome, patient=patient, resource=resource, **details
        )
        return await self.audit.stage(connection, entry)

    async def settle(self, staged: Sequence[UUID]) -> None:
        """Return once what was staged is in the chain."""
        await self.audit.settle(staged, deadline=time.monotonic() + DEADLINE_S)


@asynccontextmanager
async def operator_audit(places: Places, organization: str) -> AsyncIterator[Operator]:
    """An open audit and database for one command."""
    database = Database(places.dsn, connections=2, name="medrec-operator")
    audit = Audit(database, places.journal)
    await database.open()
    try:
        await audit.start()
        yield Operator(operator(organization), audit, database)
    finally:
        await audit.close()
        await database.close()


def record(
    places: Places,
    action: str,
    outcome: Outcome = "success",
    *,
    organization: str,
    patient: str | None = None,
    resource: str | None = None,
    **details: Any,
) -> None:
    """Put one act on record, where no event loop runs."""

    async def once() -> None:
        # The chain has a connection of its own: this database stays closed.
        audit = Audit(Database(places.dsn, connections=1), places.journal)
        await audit.start()
        try:
            who = operator(organization)
            entry = entry_of(who, action, outcome, patient=patient, resource=resource, **details)
            await audit.record(entry, deadline=who.deadline)
        finally:
            await audit.close()

    asyncio.run(once())
