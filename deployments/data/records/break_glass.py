"""Break-glass: access in an emergency, for a reason, for a while, and never unnoticed.

Whoever treats a patient without a care relationship may open the record at once. The act is in the
audit before its answer, raises an alert, and stands on a list until somebody else has judged it.
"""

from __future__ import annotations

import logging
import re
import uuid
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from configs.args import RecordsArgs
from deployments.data import scopes
from deployments.data.audit.chain import Audit
from deployments.data.database import Compartment, Database
from deployments.data.errors import Conflict, Forbidden, Invalid, NotFound, PreconditionFailed
from deployments.data.principal import Caller
from deployments.data.records import care, grants, idempotency
from deployments.data.records.grants import FIND, GRANT, ONE, PAGE, REVIEW, Grant, Verdict
from deployments.data.records.missing import Missing
from deployments.data.records.search import decode_cursor, encode_cursor, parse
from deployments.data.records.trail import Trail
from deployments.data.repeating import repeat, repeated
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MIN_REASON, MAX_REASON = 10, 500
MAX_COUNT = 100
_FINGERPRINT = "break-glass"
_log = logging.getLogger("medrec.break_glass")


class BreakGlass:
    """Grants and their reviews, of every organisation."""

    def __init__(self, database: Database, sealer: Sealer, audit: Audit, args: RecordsArgs) -> None:
        self._database = database
        self._sealer = sealer
        self._trail = Trail(audit, enabled=args.audit)
        self._lasts_s = args.break_glass_s

    async def open(
        self,
        caller: Caller,
        *,
        reason: str,
        patient: str | None = None,
        identifier: tuple[str, str] | None = None,
    ) -> tuple[Grant, bool]:
        """Open a patient, by id or by (system, value) of an identifier, to the caller.

        Tells as well whether the access is new, not one that the same idempotency key has opened.

        Raises `Forbidden` without the scope or for who treats nobody, `NotFound` for no such
        patient (on record as denied), `PreconditionFailed` for an identifier that several have.
        """
        scopes.require(caller.principal, "break-glass")
        practitioner = caller.principal.practitioner
        if practitioner is None or scopes.compartment(caller.principal) != "care":
            raise Forbidden("Break-glass is for those who treat patients.")
        _check_reason(reason)
        if (patient is None) == (identifier is None):
            raise Invalid("Give either the patient or an identifier.", param="patient")
        keyed = idempotency.checked(caller) is not None
        grant, fresh = await repeat(
            lambda: self._open(caller, practitioner, reason, patient, identifier),
            deadline=caller.deadline,
            even_unknown=keyed,
        )
        if fresh:
            _log.warning(
                "break-glass %s: account %s opened patient %s until %s",
                grant.id,
                grant.account,
                grant.patient,
                grant.expires_at.isoformat(timespec="seconds"),
            )
        return grant, fresh

    async def _open(
        self,
        caller: Caller,
        practitioner: str,
        reason: str,
        patient: str | None,
        identifier: tuple[str, str] | None,
    ) -> tuple[Grant, bool]:
        try:
            async with self._opened(caller, "all", write=True) as connection:
                found = await self._find(connection, patient, identifier)
                grant, fresh, staged = await self._granted(
                    connection, caller, practitioner, found, reason
                )
        except Missing as error:
            await self._trail.missed(caller, "break-glass", error.type, error.id, code="not_found")
            raise
        await self._trail.settle(staged, caller)
        return grant, fresh

    @repeated
    async def listed(
        self, caller: Caller, *, reviewed: bool | None, count: int, cursor: str | None
    ) -> tuple[list[Grant], str | None]:
        """Grants, newest first, and how to go on; `reviewed` None: all of them."""
        scopes.require(caller.principal, "break-glass:review")
        count = max(1, min(count, MAX_COUNT))
        at, id = _place(cursor)
        async with self._opened(caller, "none", write=False) as connection:
            values = (reviewed, reviewed, at, at, id, count + 1)
            rows = await (await connection.execute(PAGE, values)).fetchall()
        found = [
            grants.read(self._sealer, caller.principal.organization, row) for row in rows[:count]
        ]
        further = None
        if len(rows) > count:
            last = found[-1]
            further = encode_cursor(_FINGERPRINT, [last.granted_at.isoformat(), last.id])
        await self._trail.saw(
            caller,
            "break-glass-review",
            resource="BreakGlass",
            patients=sorted({grant.patient for grant in found}),
            listed=len(found),
        )
        return found, further

    @repeated
    async def review(self, caller: Caller, id: str, *, verdict: Verdict, note: str | None) -> Grant:
        """Judge a grant, once and for all; nobody judges their own."""
        scopes.require(caller.principal, "break-glass:review")
        who = caller.principal
        async with self._opened(caller, "none", write=True) as connection:
            grant = await self._one(connection, caller, id)
            if grant.account == who.id:
                raise Forbidden("Nobody reviews their own break-glass.", code="own_break_glass")
            sealed = grants.seal_note(self._sealer, who.organization, id, note)
            now = datetime.now(UTC)
            done = await connection.execute(REVIEW, (id, who.id, verdict, *sealed, now))
            if await done.fetchone() is None:
                raise Conflict("This break-glass was reviewed already.", code="reviewed_already")
            staged = await self._trail.stage(
                connection,
                caller,
                "break-glass-review",
                resource=f"BreakGlass/{id}",
                patients=[grant.patient],
                verdict=verdict,
            )
            grant = await self._one(connection, caller, id)
        await self._trail.settle(staged, caller)
        return grant

    async def _find(
        self, connection: Connection, patient: str | None, identifier: tuple[str, str] | None
    ) -> str:
        """The id of the one patient; raises `Missing` or `PreconditionFailed`."""
        if identifier is not None:
            wanted = "|".join(re.sub(r"([\\,|$])", r"\\\1", part) for part in identifier)
            name = "identifier"
        else:
            name, wanted = "_id", patient or ""
        condition, values = parse("Patient", [(name, wanted)]).where(self._sealer)
        found = await connection.execute(FIND.format(condition=condition), values)
        rows = await found.fetchall()
        if len(rows) > 1:
            message = "Several patients have this identifier."
            raise PreconditionFailed(message, param="identifier", code="several_matches")
        if not rows:
            raise Missing("Patient", patient or "")
        return str(rows[0][0])

    async def _granted(
        self,
        connection: Connection,
        caller: Caller,
        practitioner: str,
        patient: str,
        reason: str,
    ) -> tuple[Grant, bool, list[uuid.UUID]]:
        request = idempotency.fingerprint(self._sealer, "break-glass", patient, reason)
        before = await idempotency.claim(connection, caller, request)
        if before is not None:
            grant = await self._one(connection, caller, before[0]["id"])
            return grant, False, await self._stage(connection, caller, grant, replayed=True)
        id = str(uuid.uuid4())
        now = datetime.now(UTC)
        until = now + timedelta(seconds=self._lasts_s)
        sealed = self._sealer.seal(
            reason.encode(), grants.reason_context(caller.principal.organization, id)
        )
        who = (caller.principal.id, practitioner, patient, caller.request_id)
        what = (sealed.data, sealed.key_id, sealed.wrapped_key, now, until)
        await connection.execute(GRANT, (id, *who, *what))
        await care.open_by_break_glass(connection, practitioner, patient, grant=id, until=until)
        await idempotency.remember(connection, caller, [{"id": id}])
        grant = Grant(id, *who, reason, now, until)
        return grant, True, await self._stage(connection, caller, grant)

    async def _stage(
        self, connection: Connection, caller: Caller, grant: Grant, **details: Any
    ) -> list[uuid.UUID]:
        return await self._trail.stage(
            connection,
            caller,
            "break-glass",
            resource=f"Patient/{grant.patient}",
            patients=[grant.patient],
            broke_glass=True,
            grant=grant.id,
            expires_at=grant.expires_at.isoformat(timespec="seconds"),
            **details,
        )

    async def _one(self, connection: Connection, caller: Caller, id: str) -> Grant:
        row = None
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", id):
            row = await (await connection.execute(ONE, (id,))).fetchone()
        if row is None:
            raise NotFound("There is no break-glass of this id.")
        return grants.read(self._sealer, caller.principal.organization, row)

    def _opened(
        self, caller: Caller, compartment: Compartment, *, write: bool
    ) -> AbstractAsyncContextManager[Connection]:
        return self._database.transaction(
            deadline=caller.deadline,
            organization=caller.principal.organization,
            practitioner=caller.principal.practitioner or "",
            compartment=compartment,
            durable=not (write and self._trail.enabled),
            read_only=not write,
        )


def _check_reason(reason: str) -> None:
    if not MIN_REASON <= len(reason.strip()) <= MAX_REASON or "\0" in reason:
        message = f"The reason takes {MIN_REASON} to {MAX_REASON} characters."
        raise Invalid(message, param="reason")


def _place(cursor: str | None) -> tuple[datetime | None, str | None]:
    if cursor is None:
        return None, None
    try:
        at, id = decode_cursor(_FINGERPRINT, cursor)
        return datetime.fromisoformat(at).astimezone(UTC), str(uuid.UUID(id))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise Invalid("The cursor is not one of this list.", param="cursor") from None
