"""Alerts by right and on record: raised, listed, read, acknowledged, resolved.

Raising, acknowledging and resolving commit durably with their audit entry; what is shown of an alert
is in the chain before it leaves, as every look into a patient's record.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg

from configs.args import RecordsArgs
from deployments.data import scopes
from deployments.data.alerts.alert import SEVERITIES, Alert, Severity, To, read_anyway
from deployments.data.alerts.people import Person, actor_of, person_of
from deployments.data.alerts.raising import Draft, happened, raise_
from deployments.data.alerts.statements import (
    ACKNOWLEDGE,
    DURABLE,
    LOCK,
    ONE,
    PAGE,
    RESOLVE,
    ROLE_OF,
    SEES,
)
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.errors import Conflict, Forbidden, Invalid, NotFound, Unprocessable
from deployments.data.principal import Caller
from deployments.data.records import idempotency
from deployments.data.records.missing import Missing, look_for
from deployments.data.records.search import decode_cursor, encode_cursor
from deployments.data.records.trail import Trail
from deployments.data.repeating import repeat, repeated
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

MAX_TEXT = 2000
MAX_COUNT = 100
_FINGERPRINT = "alerts"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CODE = re.compile(r"[a-z0-9-]{1,64}")


class Alerts:
    """The alerts of every organisation, as one process reaches them."""

    def __init__(
        self,
        database: Database,
        sealer: Sealer,
        audit: Audit,
        args: RecordsArgs,
        *,
        severities: Sequence[Severity] | None = None,
    ) -> None:
        """`severities` are those that can be raised here; those of `args` unless given."""
        self._database = database
        self._sealer = sealer
        self._trail = Trail(audit, enabled=args.audit)
        self._args = args.alerts
        self._severities = tuple(severities or args.alerts.severities)

    async def raise_alert(
        self,
        caller: Caller,
        *,
        severity: Severity,
        code: str,
        to: To,
        patient: str | None = None,
        text: str | None = None,
    ) -> tuple[Alert, bool]:
        """Raise an alert; tells as well whether it is new, not that of a repeated request.

        Raises `Forbidden` without the scope or for a severity that is not taken here, `Invalid`
        and `Unprocessable` for what cannot be honoured, `NotFound` for no such patient.
        """
        scopes.require(caller.principal, "alerts:raise")
        self._check(severity, code, to, patient, text)
        keyed = idempotency.checked(caller) is not None

        async def once() -> tuple[Alert, bool]:
            async with self._opened(caller, write=True) as connection:
                alert, fresh, staged = await self._raised(
                    connection, caller, severity, code, to, patient, text
                )
            await self._trail.settle(staged, caller)
            return alert, fresh

        try:
            return await repeat(once, deadline=caller.deadline, even_unknown=keyed)
        except Missing as error:
            await self._trail.missed(caller, "alert-raise", error.type, error.id, code="not_found")
            raise

    @repeated
    async def listed(
        self, caller: Caller, *, every: bool, count: int, cursor: str | None
    ) -> tuple[list[Alert], str | None]:
        """Alerts that call the caller or were raised by them, newest first, and how to go on.

        Open ones only, unless `every`.
        """
        person = person_of(caller.principal)
        count = max(1, min(count, MAX_COUNT))
        at, id = _place(cursor)
        async with self._opened(caller, write=False) as connection:
            values = (every, *person.words, at, at, id, count + 1)
            rows = await (await connection.execute(PAGE, values)).fetchall()
        found = [read_anyway(self._sealer, row) for row in rows[:count]]
        further = None
        if len(rows) > count:
            further = encode_cursor(_FINGERPRINT, [found[-1].raised_at.isoformat(), found[-1].id])
        await self.shown(caller, found, via="list")
        return found, further

    @repeated
    async def read(self, caller: Caller, id: str) -> Alert:
        """One alert. Raises `NotFound` for one that neither calls the caller nor is theirs."""
        person = person_of(caller.principal)
        async with self._opened(caller, write=False) as connection:
            alert = await self._one(connection, person, id)
        await self.shown(caller, [alert], via="read")
        return alert

    @repeated
    async def acknowledge(self, caller: Caller, id: str) -> Alert:
        """Take an alert on: nobody else is called any more. Doing so again changes nothing.

        Raises `Forbidden` for machines and for who raised it, `Conflict` once it is resolved.
        """
        person = actor_of(caller.principal)
        async with self._opened(caller, write=True) as connection:
            alert = await self._one(connection, person, id, lock=True)
            if alert.raised_by == person.account:
                raise Forbidden("An alert is acknowledged by somebody else.", code="own_alert")
            if any(each.account == person.account for each in alert.acknowledgements):
                staged: list[UUID] = []
            elif not alert.is_open:
                raise Conflict("This alert is resolved already.", code="resolved_already")
            else:
                await connection.execute(ACKNOWLEDGE, (id,))
                staged = await self._happened(connection, caller, alert, "acknowledged")
                alert = await self._one(connection, person, id)
        await self._answered(caller, alert, staged)
        return alert

    @repeated
    async def resolve(self, caller: Caller, id: str) -> Alert:
        """Close an alert, for everybody and for good. Doing so again changes nothing."""
        person = actor_of(caller.principal)
        async with self._opened(caller, write=True) as connection:
            alert = await self._one(connection, person, id, lock=True)
            staged: list[UUID] = []
            if alert.is_open:
                await connection.execute(RESOLVE, (id,))
                staged = await self._happened(connection, caller, alert, "resolved")
                alert = await self._one(connection, person, id)
        await self._answered(caller, alert, staged)
        return alert

    async def shown(self, caller: Caller, alerts: Sequence[Alert], *, via: str) -> None:
        """On record, durably, that these are about to be shown. Raises if that fails."""
        if not alerts:
            return
        patients = sorted({each.patient for each in alerts if each.patient})
        await self._trail.saw(
            caller,
            "alert-delivery",
            resource=f"Alert/{alerts[0].id}" if len(alerts) == 1 else "Alert",
            patients=patients,
            alerts=[each.id for each in alerts],
            via=via,
        )

    def _check(
        self, severity: Severity, code: str, to: To, patient: str | None, text: str | None
    ) -> None:
        if severity not in SEVERITIES:
            raise Invalid("An alert is critical or high.", param="severity")
        if severity not in self._severities:
            words = " and ".join(self._severities)
            message = f"Only {words} alerts are taken here now."
            raise Forbidden(message, param="severity", code="severity_not_taken")
        if not _CODE.fullmatch(code):
            message = "The kind is a code of 1 to 64 small letters, digits and hyphens."
            raise Invalid(message, param="kind")
        if text is not None and (not 1 <= len(text) <= MAX_TEXT or "\0" in text):
            raise Invalid(f"The text takes 1 to {MAX_TEXT} characters.", param="text")
        if to.kind == "care" and patient is None:
            message = "Those who care for a patient are called about a patient."
            raise Invalid(message, param="patient")

    async def _raised(
        self,
        connection: Connection,
        caller: Caller,
        severity: Severity,
        code: str,
        to: To,
        patient: str | None,
        text: str | None,
    ) -> tuple[Alert, bool, list[UUID]]:
        who = caller.principal
        asked = (severity, code, to.kind, to.id, to.role, patient, text)
        request = idempotency.fingerprint(self._sealer, "alert", *asked)
        before = await idempotency.claim(connection, caller, request)
        person = Person(who.id, who.practitioner or "", who.role)
        if before is not None:
            alert = await self._one(connection, person, before[0]["id"])
            return alert, False, await self._stage(connection, caller, alert, "alert-raise", True)
        broke_glass = patient is not None and await self._sees(connection, patient)
        draft = Draft(
            severity,
            code,
            await _called(connection, to),
            raised_by=who.id,
            patient=patient,
            text=text,
        )
        first_s = self._args.first_s(severity)
        await raise_(connection, self._sealer, who, draft, first_s=first_s)
        await idempotency.remember(connection, caller, [{"id": draft.id}])
        alert = await self._one(connection, person, draft.id)
        staged = await self._stage(
            connection, caller, alert, "alert-raise", False, broke_glass=broke_glass
        )
        return alert, True, staged

    async def _sees(self, connection: Connection, patient: str) -> bool:
        """Whether break-glass alone opens this patient. Raises `Missing` if nothing does."""
        look_for("Patient", patient)
        row = await (await connection.execute(SEES, (patient, patient))).fetchone()
        if row is None or not row[0]:
            raise Missing("Patient", patient)
        return bool(row[1])

    async def _one(
        self, connection: Connection, person: Person, id: str, *, lock: bool = False
    ) -> Alert:
        row = None
        if _ID.fullmatch(id):
            query = ONE + (LOCK if lock else "")
            row = await (await connection.execute(query, (id, *person.words))).fetchone()
        if row is None:
            raise NotFound("There is no alert of this id for you.")
        return read_anyway(self._sealer, row)

    async def _happened(
        self, connection: Connection, caller: Caller, alert: Alert, kind: Any
    ) -> list[UUID]:
        who = caller.principal
        await connection.execute(DURABLE)
        await happened(connection, alert.id, kind, actor=who.id, role=who.role, level=alert.level)
        action = {"acknowledged": "alert-acknowledge", "resolved": "alert-resolve"}[kind]
        return await self._stage(connection, caller, alert, action, False)

    async def _stage(
        self,
        connection: Connection,
        caller: Caller,
        alert: Alert,
        action: str,
        replayed: bool,
        *,
        broke_glass: bool = False,
    ) -> list[UUID]:
        return await self._trail.stage(
            connection,
            caller,
            action,
            resource=f"Alert/{alert.id}",
            patients=[alert.patient] if alert.patient else [],
            broke_glass=broke_glass,
            **entry_details(alert),
            **({"replayed": True} if replayed else {}),
        )

    async def _answered(self, caller: Caller, alert: Alert, staged: list[UUID]) -> None:
        """The act is on record; where nothing was done, that the alert is shown."""
        if staged:
            await self._trail.settle(staged, caller)
        else:
            await self.shown(caller, [alert], via="read")

    def _opened(self, caller: Caller, *, write: bool) -> AbstractAsyncContextManager[Connection]:
        who = caller.principal
        return self._database.transaction(
            deadline=caller.deadline,
            organization=who.organization,
            practitioner=who.practitioner or "",
            compartment=scopes.compartment(who),
            read_only=not write,
        )


def entry_details(alert: Alert) -> dict[str, Any]:
    """What the audit says of an alert: codes and ids."""
    to = {"called": alert.to.kind, "called_id": alert.to.id, "called_role": alert.to.role}
    return {
        "severity": alert.severity,
        "code": alert.code,
        "level": alert.level,
        **{name: value for name, value in to.items() if value is not None},
    }


async def _called(connection: Connection, to: To) -> To:
    """The address with the role of a named practitioner. Raises `Unprocessable` for nobody's."""
    if to.kind != "practitioner":
        return to
    row = await (await connection.execute(ROLE_OF, (to.id,))).fetchone()
    if row is None:
        message = "Nobody who treats patients signs in as this practitioner."
        raise Unprocessable(message, param="to.practitioner", code="nobody_to_call")
    return replace(to, role=row[0])


def _place(cursor: str | None) -> tuple[datetime | None, str | None]:
    if cursor is None:
        return None, None
    try:
        at, id = decode_cursor(_FINGERPRINT, cursor)
        return datetime.fromisoformat(at).astimezone(UTC), str(UUID(id))
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise Invalid("The cursor is not one of this list.", param="cursor") from None
