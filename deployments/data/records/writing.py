"""One version of one resource, written: checked, sealed, into `resource` and `history` at once."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from configs.args import RecordsArgs
from deployments.data import scopes
from deployments.data.errors import Conflict, Invalid, PreconditionFailed, Unprocessable
from deployments.data.principal import Caller
from deployments.data.records import care, references
from deployments.data.records.indexing import Index, index
from deployments.data.records.missing import Missing, look_for
from deployments.data.records.rows import Encoded, Rows, complete, moment
from deployments.data.records.shapes import SHARED_TYPES, Stored
from deployments.data.records.statements import INSERT, LIVING, LOCKED, REPLACE, SEARCHED
from deployments.data.records.validation import validate
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
Names = dict[tuple[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Draft:
    """A resource that has been validated and given its id, with its extracted columns."""

    type: str
    id: str
    resource: dict[str, Any] = field(repr=False)
    index: Index = field(repr=False)


@dataclass(frozen=True, slots=True)
class Current:
    """What is there before a write, locked until the transaction ends."""

    version: int
    updated_at: datetime
    deleted: bool
    patient: str | None
    refs: frozenset[tuple[str, str]]  # every reference that it has
    broke_glass: bool


@dataclass(frozen=True, slots=True)
class Change:
    """A version that was written, and what the audit says about it."""

    stored: Stored
    sha256: str
    broke_glass: bool


def new_id() -> str:
    """Ids are the server's own: nobody can learn what is there by choosing one."""
    return str(uuid.uuid4())


class Writer:
    """Writes versions inside transactions that others begin and end."""

    def __init__(self, sealer: Sealer, args: RecordsArgs) -> None:
        self._sealer = sealer
        self._args = args
        self.rows = Rows(sealer)

    def draft(self, type: str, id: str, resource: Mapping[str, Any]) -> Draft:
        """Validate; raises `Unprocessable` or `Invalid` that names the element at fault."""
        bare = {key: value for key, value in dict(resource).items() if key != "id"}
        checked = validate(type, bare, self._args.identifier_systems)
        whole = {**checked, "id": id}
        found = index(whole, self._sealer)
        every = {f"{target}/{name}" for target, name in references.references_of(whole)}
        refs = sorted(every.union(found.refs))
        return Draft(type, id, whole, replace(found, refs=refs))

    async def create(
        self, connection: Connection, caller: Caller, draft: Draft, pending: Names
    ) -> Change:
        """Version 1. `pending` holds what the same transaction writes as well."""
        patient = await self._patient(connection, caller, draft, pending)
        broke_glass = False
        if draft.type == "Patient":
            await self._register(connection, caller, draft.id)
        elif patient is not None:
            broke_glass = await references.hold_patient(connection, patient, pending)
        await references.check(connection, draft.resource, patient, pending=pending)
        return await self._write(
            connection, caller, draft, patient, version=1, method="POST", broke_glass=broke_glass
        )

    async def update(
        self,
        connection: Connection,
        caller: Caller,
        draft: Draft,
        pending: Names,
        *,
        if_match: int | None,
    ) -> Change:
        """The next version; one that was deleted comes back to life."""
        current = await self.lock(connection, draft.type, draft.id)
        _match(current, if_match)
        patient = await self._patient(connection, caller, draft, pending)
        if patient != current.patient:
            raise Unprocessable(
                "A resource stays with its patient.", param="subject", code="patient_changed"
            )
        if patient is not None and draft.type != "Patient":
            await references.hold_patient(connection, patient, pending)
        await references.check(
            connection, draft.resource, patient, known=current.refs, pending=pending
        )
        return await self._write(
            connection,
            caller,
            draft,
            patient,
            version=current.version + 1,
            method="PUT",
            replaces=current,
            broke_glass=current.broke_glass,
        )

    async def delete(
        self, connection: Connection, caller: Caller, type: str, id: str
    ) -> Change | None:
        """A version that says so; None where it is deleted already."""
        current = await self.lock(connection, type, id, strongly=True)
        if current.deleted:
            return None
        if type == "Patient":
            row = await (await connection.execute(LIVING, (id,))).fetchone()
            if row is not None:
                message = "The patient still has records, which are kept."
                raise Conflict(message, code="has_records")
        draft = Draft(type, id, {}, Index(patient=current.patient))
        change = await self._write(
            connection,
            caller,
            draft,
            current.patient,
            version=current.version + 1,
            method="DELETE",
            replaces=current,
            broke_glass=current.broke_glass,
        )
        await care.end(connection, type, id)
        return change

    async def lock(
        self, connection: Connection, type: str, id: str, *, strongly: bool = False
    ) -> Current:
        """What is there now; whoever else wants to write it waits. Raises `Missing`.

        `strongly`: whoever wants to refer to it (`hold_patient`) waits as well.
        """
        look_for(type, id)
        statement = LOCKED.format(
            type=sql.Literal(type), strength=sql.SQL("UPDATE" if strongly else "NO KEY UPDATE")
        )
        row = await (await connection.execute(statement, (id,))).fetchone()
        if row is None:
            raise Missing(type, id)
        version, updated_at, deleted, patient, refs, broke_glass = row
        known = references.references_of([{"reference": each} for each in refs])
        return Current(version, updated_at, deleted, patient, frozenset(known), bool(broke_glass))

    async def _patient(
        self, connection: Connection, caller: Caller, draft: Draft, pending: Names
    ) -> str | None:
        """The compartment that the resource lies in. Every one but shared types needs one."""
        if draft.type in SHARED_TYPES:
            return None
        patient = draft.index.patient
        if patient is None and draft.type in ("Provenance", "Binary"):
            patient = await references.patient_of_anchors(connection, draft.resource, pending)
        everyone = scopes.compartment(caller.principal) == "all"
        if patient is None and not (draft.type == "Binary" and everyone):
            raise Unprocessable(
                f"A {draft.type} must belong to a patient.",
                param=f"{draft.type}.subject",
                code="patient_required",
            )
        return patient

    async def _register(self, connection: Connection, caller: Caller, patient: str) -> None:
        practitioner = caller.principal.practitioner
        if practitioner is not None and scopes.compartment(caller.principal) == "care":
            days = self._args.care_days
            await care.register(connection, practitioner, patient, care_days=days)

    async def _write(
        self,
        connection: Connection,
        caller: Caller,
        draft: Draft,
        patient: str | None,
        *,
        version: int,
        method: str,
        broke_glass: bool,
        replaces: Current | None = None,
    ) -> Change:
        organization = caller.principal.organization
        updated_at = moment(replaces.updated_at if replaces else None)
        resource = None if method == "DELETE" else draft.resource
        name = f"{draft.type}/{draft.id}/{version}"
        encoded = self.rows.encode(organization, resource, name)
        head = (organization, draft.type, draft.id, version, updated_at, resource is None, method)
        values = (*head, patient, *_content(encoded), *_searched(draft.index))
        if replaces is None:
            done = await connection.execute(INSERT, values)
        else:
            statement = REPLACE.format(type=sql.Literal(draft.type))
            done = await connection.execute(statement, (*values, draft.id, replaces.version))
        if done.rowcount != 1:
            raise Conflict("Somebody else changed it at the same time.", code="serialization")
        whole = None
        if resource is not None:
            whole = complete(draft.type, draft.id, version, updated_at, resource)
            if patient is not None:
                await care.follow(
                    connection,
                    whole,
                    patient=patient,
                    now=updated_at,
                    care_days=self._args.care_days,
                    glass_broken_by=caller.principal.practitioner if broke_glass else None,
                )
        stored = Stored(draft.type, draft.id, version, updated_at, whole, method, patient)
        return Change(stored, encoded.sha256, broke_glass)


def check_id(resource: Mapping[str, Any], id: str) -> None:
    """Raise `Invalid` unless an update's body names the resource that its address names."""
    if resource.get("id") != id:
        raise Invalid("The resource's id must be that of its address.", param="id")


def _match(current: Current, if_match: int | None) -> None:
    if if_match is not None and if_match != current.version:
        raise PreconditionFailed("If-Match names another version.", param="If-Match")


def _content(encoded: Encoded) -> tuple[Any, ...]:
    sealed = encoded.sealed
    if sealed is None:
        return (encoded.content, None, None, None)
    return (encoded.content, sealed.data, sealed.key_id, sealed.wrapped_key)


def _searched(index: Index) -> tuple[Any, ...]:
    return tuple(getattr(index, name) for name in SEARCHED)
