"""Erasure at a person's request, or of a record whose 20 years are over; on record as it happens."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg

from deployments.data.audit.operator import operator_audit
from deployments.data.blobs.store import erase as erase_blob
from deployments.data.database import Database
from deployments.data.errors import Conflict
from deployments.data.interactions.subject import (
    Line,
    Subject,
    erase,
    kept_until,
    last_entry,
    overdue,
)
from deployments.data.places import Places

DEADLINE_S = 300.0


class Erasure:
    """The operator's erasure, as the owner of the tables: the application itself deletes nothing."""

    def __init__(self, places: Places) -> None:
        self._places = places

    async def run(
        self, subject: Subject, *, records_too: bool = False, now: datetime | None = None
    ) -> list[Line]:
        """Erase, and return once that is on record.

        With `records_too` the record as well: `Conflict` before 20 years have passed since its last
        entry. A record's documents lose their keys first, so that nothing of them can be read.
        """
        deadline = time.monotonic() + DEADLINE_S
        owner = Database(self._places.owner_dsn, connections=2, name="medrec-erasure")
        await owner.open()
        try:
            async with operator_audit(self._places, subject.organization) as operator:
                if records_too:
                    await self._check_over(owner, subject, deadline, now or datetime.now(UTC))
                    await operator.record(
                        "erase", patient=subject.patient, step="begin", records_too=True
                    )
                    await self._shred_documents(subject)
                async with owner.transaction(deadline=deadline) as connection:
                    lines = await erase(connection, subject, records_too=records_too)
                    staged = await operator.stage(
                        connection,
                        "erase",
                        patient=subject.patient,
                        records_too=records_too,
                        erased={line.category: line.erased for line in lines if line.erased},
                        kept={line.category: line.kept for line in lines if line.kept},
                    )
                await operator.settle([staged])
                return lines
        finally:
            await owner.close()

    async def due(self, organization: str, now: datetime | None = None) -> list[str]:
        """Ids of the patients whose record may be deleted; the looking is on record."""
        deadline = time.monotonic() + DEADLINE_S
        owner = Database(self._places.owner_dsn, connections=2, name="medrec-erasure")
        await owner.open()
        try:
            async with operator_audit(self._places, organization) as operator:
                async with owner.transaction(deadline=deadline, read_only=True) as connection:
                    found = await overdue(connection, organization, now or datetime.now(UTC))
                await operator.record("search", resource="Patient", overdue=len(found))
                return [patient for patient, _ in found]
        finally:
            await owner.close()

    async def _check_over(
        self, owner: Database, subject: Subject, deadline: float, now: datetime
    ) -> None:
        async with owner.transaction(deadline=deadline, read_only=True) as connection:
            last = await last_entry(connection, subject)
        if last is not None and (until := kept_until(last)) > now:
            message = f"The law keeps this record until {until:%Y-%m-%d}: nothing was erased."
            raise Conflict(message, code="kept_by_law")

    async def _shred_documents(self, subject: Subject) -> None:
        for name in await self._documents(subject):
            async with await psycopg.AsyncConnection.connect(
                self._places.owner_dsn, autocommit=True
            ) as connection:
                await erase_blob(connection, self._places.blobs, name)

    async def _documents(self, subject: Subject) -> Sequence[str]:
        async with await psycopg.AsyncConnection.connect(self._places.owner_dsn) as connection:
            found = await connection.execute(
                "SELECT name FROM records.blob WHERE erased_at IS NULL"
                " AND patient = %(patient)s AND organization = %(organization)s",
                subject.values,
            )
            return [row[0] for row in await found.fetchall()]
