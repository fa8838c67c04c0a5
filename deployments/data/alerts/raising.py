"""An alert's first row and event, inside the transaction that raises it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from deployments.data.alerts.alert import EventKind, Severity, To, seal_text
from deployments.data.alerts.statements import DURABLE, HAPPENED, RAISE, RAISE_ONCE
from deployments.data.audit.entry import time_ordered_id
from deployments.data.principal import Principal
from deployments.data.seal.sealer import Sealer

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Draft:
    """What is going to be raised. `text` is sealed before it is kept."""

    severity: Severity
    code: str
    to: To
    raised_by: str
    patient: str | None = None
    text: str | None = field(default=None, repr=False)
    origin: Literal["staff", "rule"] = "staff"
    resource: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))


async def raise_(
    connection: Connection, sealer: Sealer, who: Principal, draft: Draft, *, first_s: float
) -> bool:
    """Keep the alert; False where a rule's alert on the same resource is open already.

    `first_s` are the seconds until it calls others. The transaction becomes a durable one.
    """
    await connection.execute(DURABLE)
    sealed = seal_text(sealer, who.organization, draft.id, draft.text)
    head = (draft.id, draft.severity, draft.code, draft.origin, draft.patient, draft.resource)
    to = (draft.to.kind, draft.to.id, draft.to.role)
    values = (*head, draft.raised_by, *to, first_s, *sealed)
    done = await connection.execute(RAISE_ONCE if draft.origin == "rule" else RAISE, values)
    if done.rowcount == 0:
        return False
    await happened(connection, draft.id, "raised", actor=who.id, role=who.role, level=0)
    return True


async def happened(
    connection: Connection, alert: str, kind: EventKind, *, actor: str, role: str, level: int
) -> None:
    """Keep an event; the commit gives it its number and wakes whoever listens."""
    await connection.execute(HAPPENED, (time_ordered_id(), alert, kind, actor, role, level))
