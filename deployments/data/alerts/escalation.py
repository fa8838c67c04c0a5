"""Calls others where nobody acknowledges: the next level, and reminders once all were called."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from configs.args import RecordsArgs
from deployments.data.alerts.alert import Alert, read
from deployments.data.alerts.alerts import entry_details
from deployments.data.alerts.raising import happened
from deployments.data.alerts.statements import DUE, DURABLE, ESCALATE
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from deployments.data.database import Database
from deployments.data.interactions.retention import CUSTODIAN

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
BATCH = 200


@dataclass(frozen=True, slots=True)
class Call:
    """What the next call of an alert is. `again_s` None: it is the last one."""

    level: int
    escalations: int
    to_all: bool
    again_s: float | None
    reason: str


def next_call(alert: Alert, *, again_s: float, reminders: int) -> Call:
    """Whom an unacknowledged alert calls next.

    A named practitioner (0), then everyone of the role who cares for the patient (1), then every
    physician of the organisation; who was addressed as a role or as a group begins at 0 as well.
    """
    last = 2 if alert.to.kind == "practitioner" else 1
    escalations = alert.escalations + 1
    level = min(alert.level + 1, last)
    left = last + reminders - escalations
    if level > alert.level:
        reason = "nobody acknowledged in time: the next level is called"
    else:
        reason = "nobody acknowledged in time: everybody is reminded"
    return Call(level, escalations, level == last, again_s if left > 0 else None, reason)


class Escalation:
    """The custodian's job. `escalated` counts calls since it was made."""

    def __init__(self, database: Database, audit: Audit, args: RecordsArgs) -> None:
        self._database = database
        self._audit = audit
        self._args = args.alerts
        self.escalated = 0

    async def run(self, deadline: float) -> dict[str, int]:
        """Call whoever is due; returns the figures that the metrics show. Raises `DataError`s."""
        while time.monotonic() < deadline:
            async with self._database.transaction(deadline=deadline, read_only=True) as connection:
                found = await connection.execute("SELECT * FROM alerts.due(%s)", (BATCH,))
                due = await found.fetchall()
            for organization, id in due:
                await self._escalate(organization, str(id), deadline)
            if len(due) < BATCH:
                break
        return {"escalated": self.escalated, **await self._figures(deadline)}

    async def _escalate(self, organization: str, id: str, deadline: float) -> None:
        """One alert in a transaction of its own; somebody may have acknowledged it meanwhile."""
        staged: list[UUID] = []
        async with self._database.transaction(
            deadline=deadline, organization=organization, compartment="all"
        ) as connection:
            row = await (await connection.execute(DUE, (id,))).fetchone()
            if row is not None:
                staged = await self._call(connection, read(None, row))
        if staged:
            await self._audit.settle(staged, deadline=deadline)
            self.escalated += 1

    async def _call(self, connection: Connection, alert: Alert) -> list[UUID]:
        call = next_call(alert, again_s=self._args.again_s, reminders=self._args.reminders)
        await connection.execute(DURABLE)
        values = (call.level, call.escalations, call.to_all, call.again_s, alert.id)
        await connection.execute(ESCALATE, values)
        await happened(
            connection, alert.id, "escalated", actor=CUSTODIAN, role="service", level=call.level
        )
        return [await self._audit.stage(connection, _entry(alert, call))]

    async def _figures(self, deadline: float) -> dict[str, int]:
        async with self._database.transaction(deadline=deadline, read_only=True) as connection:
            found = await connection.execute("SELECT * FROM alerts.figures()")
            rows = await found.fetchall()
        opened = {severity: count for severity, count, _ in rows}
        return {
            "open_critical": opened.get("critical", 0),
            "open_high": opened.get("high", 0),
            "unacknowledged_age_s": int(max((age for _, _, age in rows), default=0.0)),
        }


def _entry(alert: Alert, call: Call) -> AuditEntry:
    return AuditEntry(
        action="alert-escalate",
        outcome="success",
        actor=CUSTODIAN,
        actor_kind="operator",
        role="service",
        organization=alert.organization,
        patient=alert.patient,
        resource=f"Alert/{alert.id}",
        details={**entry_details(alert), "level": call.level, "calls": call.escalations},
    )
