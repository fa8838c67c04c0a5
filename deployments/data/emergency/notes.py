"""Emergency notes: an append-only journal about patients of the copy, sealed, and merged back later."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import psycopg

from deployments.data import scopes
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import entry_of
from deployments.data.database import Database
from deployments.data.emergency.standing import Standing
from deployments.data.errors import Conflict, Forbidden
from deployments.data.principal import Caller
from deployments.data.records import idempotency
from deployments.data.records.missing import Missing
from deployments.data.records.trail import Trail
from deployments.data.seal.sealer import Sealed, Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Kind = Literal["note", "medication", "procedure", "observation", "handover"]
MAX_TEXT = 8_000
MAX_LISTED = 200
PURPOSE = "ETREAT"

_ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
_SEES = "SELECT records.sees(%s)"
COLUMNS = (
    "id::text, organization, activation::text, patient, kind, account, practitioner, request_id,"
    " written_at, sealed, key_id, wrapped_key"
)
_INSERT = f"""
INSERT INTO emergency.note (id, organization, activation, patient, kind, account, practitioner,
    request_id, written_at, sealed, key_id, wrapped_key)
VALUES (%s, current_setting('medrec.organization'), %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
RETURNING {COLUMNS}
"""
_LIST = f"""
SELECT {COLUMNS} FROM emergency.note
WHERE organization = current_setting('medrec.organization') AND patient = %s
ORDER BY written_at DESC, id LIMIT %s
"""
_ONE = f"SELECT {COLUMNS} FROM emergency.note WHERE id = %s"


@dataclass(frozen=True, slots=True)
class SealedNote:
    """A note as it lies in its row, and as it travels: nobody opens it on the way."""

    id: str
    organization: str
    activation: str
    patient: str
    kind: str
    account: str
    practitioner: str | None
    request_id: str
    written_at: datetime
    sealed: Sealed

    @classmethod
    def of(cls, row: Sequence[Any]) -> SealedNote:
        """From a row of `COLUMNS`."""
        sealed = Sealed(row[10], bytes(row[11]), bytes(row[9]))
        id, organization, activation, patient, kind, account, practitioner, request_id = row[:8]
        where = (id, organization, activation, patient, kind)
        who = (account, practitioner, request_id)
        return cls(*where, *who, row[8].astimezone(UTC), sealed)

    @property
    def context(self) -> bytes:
        """What the seal is bound to."""
        return context_of(self.organization, self.id)

    def opened(self, sealer: Sealer) -> Note:
        """The note with its text. Raises `SealBroken`."""
        text = sealer.open(self.sealed, self.context).decode()
        who = (self.account, self.practitioner)
        return Note(self.id, self.patient, self.kind, text, *who, self.written_at)


@dataclass(frozen=True, slots=True)
class Note:
    """An emergency note; `account` wrote it."""

    id: str
    patient: str
    kind: str
    text: str = field(repr=False)
    account: str
    practitioner: str | None
    written_at: datetime


def context_of(organization: str, id: str) -> bytes:
    """What a note's seal is bound to."""
    return f"{organization}/emergency-note/{id}".encode()


class Notes:
    """The journal, as one replica of the emergency cell writes and reads it."""

    def __init__(
        self, database: Database, sealer: Sealer, audit: Audit, standing: Standing
    ) -> None:
        self._database, self._sealer, self._audit = database, sealer, audit
        self._standing = standing
        self._trail = Trail(audit, enabled=True)

    async def write(self, caller: Caller, *, patient: str, kind: Kind, text: str) -> Note:
        """Add a note, durably and on record. Raises `Forbidden`, `Missing`, `Conflict`."""
        scopes.require_permitted(caller.principal, "DocumentReference", "c")
        if caller.principal.kind != "account":
            raise Forbidden("Notes are written by people.", code="not_a_person")
        idempotency.checked(caller)
        activation = await self._standing.last()
        if activation is None or activation.ended_at is not None:
            raise Conflict("There is no emergency to write in.", code="emergency_not_active")
        try:
            async with self._opened(caller, write=True) as connection:
                await _insist(connection, patient)
                request = idempotency.fingerprint(self._sealer, "note", patient, kind, text)
                before = await idempotency.claim(connection, caller, request)
                if before is not None:
                    row = await (await connection.execute(_ONE, (before[0]["id"],))).fetchone()
                else:
                    row = await self._insert(connection, caller, activation.id, patient, kind, text)
                assert row is not None
                note = SealedNote.of(row)
                entry = entry_of(
                    caller,
                    "emergency-note",
                    patient=patient,
                    resource=f"Note/{note.id}",
                    kind=kind,
                    replayed=before is not None,
                )
                staged = [await self._audit.stage(connection, entry)]
        except Missing as error:
            await self._trail.missed(
                caller, "emergency-note", "Patient", error.id, code="not_found"
            )
            raise
        await self._audit.settle(staged, deadline=caller.deadline)
        return note.opened(self._sealer)

    async def listed(self, caller: Caller, patient: str) -> list[Note]:
        """The newest notes about a patient, on record as read. Raises `Forbidden`, `Missing`."""
        scopes.require_permitted(caller.principal, "DocumentReference", "s")
        try:
            async with self._opened(caller, write=False) as connection:
                await _insist(connection, patient)
                cursor = await connection.execute(_LIST, (patient, MAX_LISTED))
                rows = await cursor.fetchall()
        except Missing as error:
            await self._trail.missed(caller, "search", "Patient", error.id, code="not_found")
            raise
        await self._trail.saw(
            caller, "search", resource="Note", patients=[patient], count=len(rows)
        )
        return [SealedNote.of(row).opened(self._sealer) for row in rows]

    async def _insert(
        self,
        connection: Connection,
        caller: Caller,
        activation: str,
        patient: str,
        kind: str,
        text: str,
    ) -> tuple[Any, ...] | None:
        id, who = str(uuid.uuid4()), caller.principal
        sealed = self._sealer.seal(text.encode(), context_of(who.organization, id))
        values = (
            *(id, activation, patient, kind, who.id, who.practitioner, caller.request_id),
            *(datetime.now(UTC), sealed.data, sealed.key_id, sealed.wrapped_key),
        )
        row = await (await connection.execute(_INSERT, values)).fetchone()
        await idempotency.remember(connection, caller, [{"id": id}])
        return row

    def _opened(self, caller: Caller, *, write: bool) -> Any:
        who = caller.principal
        return self._database.transaction(
            deadline=caller.deadline,
            organization=who.organization,
            practitioner=who.practitioner or "",
            compartment=scopes.compartment(who),
            durable=not write,  # the audit's settling makes a write durable, with its entry
            read_only=not write,
        )


async def _insist(connection: Connection, patient: str) -> None:
    """Raise `Missing` unless the transaction sees the patient."""
    row = None
    if _ID.fullmatch(patient):
        row = await (await connection.execute(_SEES, (patient,))).fetchone()
    if row is None or not row[0]:
        raise Missing("Patient", patient)
