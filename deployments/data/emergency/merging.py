"""The way back: what an emergency left, merged into the site's records, as often as one likes.

First everything is kept as it came, then each note becomes a document of its patient. What cannot
(no such patient any more, other content under the same id) is listed with the reason and stays kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import psycopg

from configs.args import RecordsArgs
from deployments.data.alerts import merge as alerts
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import entry_of
from deployments.data.audit.operator import operator
from deployments.data.database import Database
from deployments.data.emergency.documents import (
    document_of,
    provenance_id,
    provenance_of,
    text_of,
)
from deployments.data.emergency.notes import Note, SealedNote
from deployments.data.emergency.package import Package, collect, noted
from deployments.data.errors import Gone, NotFound, Unprocessable
from deployments.data.places import Places
from deployments.data.principal import Caller
from deployments.data.records.access import Access, Act
from deployments.data.records.reading import Reader
from deployments.data.records.trail import Trail
from deployments.data.records.writes import Writes
from deployments.data.records.writing import Writer
from deployments.data.seal.errors import SealBroken
from deployments.data.seal.sealer import Sealer

NOTE_S = 15.0
_SCOPES = frozenset({"system/*.cruds", "system/AuditEvent.rs", "admin"})
_ACTIVATION = """
INSERT INTO emergency.activation (id, reason, host, since, activated_at, expires_at, ended_at,
    ended_by, copied_at, copy_age_s, patients, first_seq)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING
"""
_NOTE = """
INSERT INTO emergency.note (id, organization, activation, patient, kind, account, practitioner,
    request_id, written_at, sealed, key_id, wrapped_key)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING
"""
_ENTRY = """
INSERT INTO emergency.entry (activation, seq, organization, body, previous, hash)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
_MERGED = "SELECT note::text FROM emergency.outcome WHERE outcome = 'merged'"
_DONE = "SELECT outcome FROM emergency.outcome WHERE note = %s"
_OUTCOME = """
INSERT INTO emergency.outcome (note, organization, outcome, reason, resource)
VALUES (%(note)s, current_setting('medrec.organization'), %(outcome)s, %(reason)s, %(resource)s)
ON CONFLICT (note) DO UPDATE SET outcome = EXCLUDED.outcome, reason = EXCLUDED.reason,
    resource = EXCLUDED.resource, at = now()
"""
_STAFF = """
SELECT 1 FROM records.resource WHERE type = 'Practitioner' AND id = %s AND NOT deleted
    AND organization = current_setting('medrec.organization')
"""


class Differs(Exception):
    """A note that cannot become a document; `reason` is a word."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Held:
    """A note or alert that people must look at, and why; nothing of it is lost."""

    kind: str
    id: str
    reason: str


@dataclass(slots=True)
class Returned:
    """What came of a merge."""

    activation: str
    merged: int = 0
    already: int = 0
    alerts: int = 0
    entries: int = 0
    conflicts: list[Held] = field(default_factory=list)


async def merge(package: Package, site: Places, args: RecordsArgs) -> Returned:
    """Merge `package` into the site at `site`. Raises `DataError`s where the database is away."""
    database = Database(site.dsn, connections=2, name="medrec-return")
    sealer = Sealer.load(site.secrets)
    async with _open(database, site) as audit:
        found = Returned(package.activation.id)
        await _keep(package, site, found)
        merging = _Merging(database, audit, sealer, args)
        for note in package.notes:
            await merging.take(note, found)
        if (fault := package.chain_fault) is not None:
            found.conflicts.append(Held("entry", str(fault), "chain_broken"))
        await merging.on_record(package, found)
    return found


async def bring_back(
    cloud_owner_dsn: str, site: Places, args: RecordsArgs
) -> AsyncIterator[Returned]:
    """The last emergency of the cell at `cloud_owner_dsn`, merged into the site.

    Earlier ones first that have notes which never came: a second emergency may follow on the first
    before anybody brings it back. Raises `NotFound` where there was none.
    """
    last = await collect(cloud_owner_dsn)
    async with await psycopg.AsyncConnection.connect(
        site.owner_dsn, connect_timeout=5
    ) as connection:
        merged = {row[0] for row in await (await connection.execute(_MERGED)).fetchall()}
    for earlier in await noted(cloud_owner_dsn):
        if earlier.id != last.activation.id and not earlier.notes <= merged:
            yield await merge(await collect(cloud_owner_dsn, earlier.id), site, args)
    yield await merge(last, site, args)


class _Merging:
    def __init__(self, database: Database, audit: Audit, sealer: Sealer, args: RecordsArgs) -> None:
        self._audit, self._sealer, self._args = audit, sealer, args
        trail = Trail(audit, enabled=True)
        self._access = Access(database, trail)
        self._reader = Reader(sealer)
        self._writes = Writes(Writer(sealer, args), self._reader, trail, sealer)

    async def take(self, sealed: SealedNote, found: Returned) -> None:
        """One note: merged, merged before, or listed with the reason."""
        caller = _operator(sealed.organization)

        async def work(act: Act) -> bool:
            before = await (await act.connection.execute(_DONE, (sealed.id,))).fetchone()
            if before is not None and before[0] == "merged":
                return False
            return await self._written(act, caller, sealed)

        try:
            fresh = await self._access.write(caller, "create", work)
        except (Differs, SealBroken, Unprocessable) as error:
            reason = error.reason if isinstance(error, Differs) else error.code
            await self._listed(caller, sealed, reason)
            found.conflicts.append(Held("note", sealed.id, reason))
            return
        if fresh:
            found.merged += 1
        else:
            found.already += 1

    async def on_record(self, package: Package, found: Returned) -> None:
        """The merge in the site's chain, with where the emergency's own chain stood."""
        caller = _operator(self._args.organization)
        seq, hash = package.head

        entry = entry_of(
            caller,
            "emergency-return",
            resource=f"Emergency/{package.activation.id}",
            merged=found.merged,
            already=found.already,
            conflicts=len(found.conflicts),
            alerts=found.alerts,
            entries=found.entries,
            head_seq=seq,
            head_hash=hash,
        )
        await self._audit.record(entry, deadline=caller.deadline)

    async def _written(self, act: Act, caller: Caller, sealed: SealedNote) -> bool:
        note = sealed.opened(self._sealer)
        connection = act.connection
        await self._check_patient(connection, caller, note.patient)
        there = await self._there(connection, caller, note)
        if not there:
            author = await _author(connection, note)
            recorded = datetime.now(UTC).isoformat(timespec="milliseconds")
            for type, id, resource in (
                ("DocumentReference", note.id, document_of(note, author)),
                ("Provenance", provenance_id(note.id), provenance_of(note, author, recorded)),
            ):
                draft = self._writes.drafted(type, resource, id=id)
                change = await self._writes.writer.create(connection, caller, draft, {})
                await self._writes.stage(
                    *(connection, act.staged, caller, "create", change),
                    emergency=sealed.activation,
                )
        await _conclude(connection, sealed.id, "merged", None, f"DocumentReference/{note.id}")
        return not there

    async def _check_patient(self, connection: Any, caller: Caller, patient: str) -> None:
        """Raise `Differs` unless the patient lives on under this id."""
        try:
            stored, _ = await self._reader.current(connection, caller, "Patient", patient)
        except NotFound:
            raise Differs("patient_unknown") from None
        if stored.resource is None:
            raise Differs("patient_deleted")
        links = stored.resource.get("link") or []
        if any(link.get("type") == "replaced-by" for link in links):
            raise Differs("patient_merged")

    async def _there(self, connection: Any, caller: Caller, note: Note) -> bool:
        """Whether the document is there already. Raises `Differs` where it says something else."""
        try:
            stored, _ = await self._reader.current(connection, caller, "DocumentReference", note.id)
        except (NotFound, Gone):
            return False
        if stored.resource is None or text_of(stored.resource) != note.text:
            raise Differs("other_content")
        return True

    async def _listed(self, caller: Caller, sealed: SealedNote, reason: str) -> None:
        async def work(act: Act) -> None:
            await _conclude(act.connection, sealed.id, "conflict", reason, None)

        await self._access.write(replace(caller, deadline=_deadline()), "create", work)


async def _keep(package: Package, site: Places, found: Returned) -> None:
    """Everything as it came, and the alerts merged, in one transaction of the owner's."""
    about = package.activation
    async with (
        await psycopg.AsyncConnection.connect(site.owner_dsn, connect_timeout=5) as connection,
        connection.transaction(),
    ):
        await connection.execute(
            _ACTIVATION,
            (
                *(about.id, about.reason, about.host, about.since, about.activated_at),
                *(about.expires_at, about.ended_at or about.expires_at, about.ended_by or "return"),
                *(about.copied_at, about.copy_age_s, about.patients, about.first_seq),
            ),
        )
        for note in package.notes:
            who = (note.account, note.practitioner, note.request_id, note.written_at)
            sealed = (note.sealed.data, note.sealed.key_id, note.sealed.wrapped_key)
            about_whom = (note.id, note.organization, note.activation, note.patient, note.kind)
            await connection.execute(_NOTE, (*about_whom, *who, *sealed))
        for entry in package.entries:
            whole = (entry.seq, entry.organization, entry.body, entry.previous, entry.hash)
            done = await connection.execute(_ENTRY, (about.id, *whole))
            found.entries += done.rowcount
        merged = await alerts.merge(connection, package.alerts)
    found.alerts = merged.alerts
    found.conflicts += [Held("alert", each.alert, each.reason) for each in merged.conflicts]


async def _author(connection: Any, note: Note) -> str | None:
    """The author's Practitioner, if it is held here; the account stands in the Provenance anyway."""
    if note.practitioner is None:
        return None
    row = await (await connection.execute(_STAFF, (note.practitioner,))).fetchone()
    return note.practitioner if row is not None else None


async def _conclude(
    connection: Any, note: str, outcome: str, reason: str | None, resource: str | None
) -> None:
    values = {"note": note, "outcome": outcome, "reason": reason, "resource": resource}
    await connection.execute(_OUTCOME, values)


def _operator(organization: str) -> Caller:
    caller = operator(organization, deadline_s=NOTE_S)
    return replace(
        caller,
        principal=replace(caller.principal, scopes=_SCOPES),
        request_id=f"return-{uuid.uuid4()}",
        purpose="ETREAT",
    )


def _deadline() -> float:
    return time.monotonic() + NOTE_S


@asynccontextmanager
async def _open(database: Database, site: Places) -> AsyncIterator[Audit]:
    audit = Audit(database, site.journal)
    await database.open()
    await audit.start()
    try:
        yield audit
    finally:
        await audit.close()
        await database.close()
