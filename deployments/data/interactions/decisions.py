"""What people made of an AI's answers, and the interactions as a chart can show them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

import orjson
import psycopg

from deployments.data.audit.entry import AuditEntry, entry_of
from deployments.data.database import Database
from deployments.data.errors import NotFound
from deployments.data.interactions.ledger import FLUSH_PERIOD_S, AuditTrail, text_context
from deployments.data.principal import Caller
from deployments.data.repeating import repeated
from deployments.data.scopes import compartment, require_permitted
from deployments.data.seal.sealer import Sealed, Sealer

Choice = Literal["accepted", "edited", "rejected"]
MAX_LISTED = 100

_COLUMNS = """
    i.id, i.patient, i.account, i.model, i.weights_sha256, i.prompt_version, i.input_sha256,
    i.output_sha256, i.started_at, i.ended_at, i.outcome
"""
# Without a patient an interaction is its asker's alone; with one, row-level security decides.
_ONE = f"""
SELECT {_COLUMNS}, i.patient IS NOT NULL AND records.by_break_glass(i.patient)
FROM interactions.interaction AS i
WHERE i.id = %s AND (i.patient IS NOT NULL OR i.account = %s)
"""
_OF_PATIENT = f"""
SELECT {_COLUMNS}, d.id, d.interaction, d.decision, d.account, d.at, d.output_sha256, d.reason
FROM interactions.interaction AS i
LEFT JOIN LATERAL (
    SELECT * FROM interactions.decision AS n WHERE n.interaction = i.id
    ORDER BY n.number DESC LIMIT 1
) AS d ON true
WHERE i.organization = %s AND i.patient = %s
    AND (%s::text IS NULL OR (i.started_at, i.id) <
        (SELECT b.started_at, b.id FROM interactions.interaction AS b WHERE b.id = %s))
ORDER BY i.started_at DESC, i.id DESC LIMIT %s
"""
_DECISIONS = """
SELECT id, interaction, decision, account, at, output_sha256, reason
FROM interactions.decision WHERE interaction = %s ORDER BY number DESC LIMIT 100
"""
_TEXTS = """
SELECT part, key_id, wrapped_key, data FROM interactions.short_lived
WHERE interaction = %s AND kind = 'chat' AND expires_at > now()
"""
_KNOWN = """
SELECT records.by_break_glass(r.id) FROM records.resource AS r
WHERE r.type = 'Patient' AND r.id = %s AND NOT r.deleted
"""
_DECIDE = """
INSERT INTO interactions.decision (id, interaction, organization, account, role, decision,
    output_sha256, reason, at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
"""


class AuditRecorder(AuditTrail, Protocol):
    """The audit, reads included (`deployments.data.audit.chain.Audit`)."""

    async def record(self, entry: AuditEntry, *, deadline: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Decision:
    """One person's word on an answer."""

    id: uuid.UUID
    interaction: str
    decision: str
    account: str
    at: datetime
    output_sha256: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Interaction:
    """An interaction as it is kept; `decision` is the newest one."""

    id: str
    patient: str | None
    account: str
    model: str
    weights_sha256: str
    prompt_version: str
    input_sha256: str
    output_sha256: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """An interaction with every decision on it, and its texts while they are kept."""

    interaction: Interaction
    decisions: Sequence[Decision]
    texts: dict[str, Any] = field(repr=False)


class Decisions:
    """Reads interactions and adds decisions, by the rights of who asks."""

    def __init__(self, database: Database, sealer: Sealer, audit: AuditRecorder) -> None:
        self._database = database
        self._sealer = sealer
        self._audit = audit

    @repeated
    async def decide(
        self,
        caller: Caller,
        interaction: str,
        decision: Choice,
        *,
        output_sha256: str | None = None,
        reason: str | None = None,
    ) -> Decision:
        """Add a decision; the newest counts, all are kept. `NotFound` for an unknown interaction."""
        who = caller.principal
        made = Decision(
            id=uuid.uuid4(),
            interaction=interaction,
            decision=decision,
            account=who.id,
            at=datetime.now(UTC),
            output_sha256=output_sha256,
            reason=reason,
        )
        await self._arrived(caller, interaction)
        async with self._transaction(caller) as connection:
            found, by_break_glass = await self._one(connection, caller, interaction)
            await connection.execute(
                _DECIDE,
                (
                    *(made.id, interaction, who.organization, who.id, who.role, decision),
                    *(output_sha256, reason, made.at),
                ),
            )
            entry = entry_of(
                caller,
                "ai-decision",
                patient=found.patient,
                interaction=interaction,
                decision=decision,
                output_sha256=output_sha256,
                reason=reason,
            )
            staged = await self._audit.stage(connection, _marked(entry, by_break_glass))
        await self._audit.settle([staged], deadline=caller.deadline)
        return made

    @repeated
    async def of_patient(
        self, caller: Caller, patient: str, *, limit: int, before: str | None = None
    ) -> list[Interaction]:
        """A patient's interactions, the newest first, those before `before` if it is given."""
        require_permitted(caller.principal, "Patient", "r")
        organization = caller.principal.organization
        async with self._transaction(caller, read_only=True) as connection:
            known = await (await connection.execute(_KNOWN, (patient,))).fetchone()
            rows: list[tuple[Any, ...]] = []
            if known is not None:
                values = (organization, patient, before, before, limit)
                rows = await (await connection.execute(_OF_PATIENT, values)).fetchall()
        if known is None:
            await self._audit.journal(
                entry_of(caller, "search", "denied", patient=patient, resource="Interaction")
            )
            raise NotFound("There is no such patient, or none that you may know of.")
        entry = entry_of(caller, "search", patient=patient, resource="Interaction", found=len(rows))
        await self._audit.record(_marked(entry, known[0]), deadline=caller.deadline)
        return [_listed(row) for row in rows]

    @repeated
    async def show(self, caller: Caller, interaction: str) -> Shown:
        """One interaction with its decisions and, while they are kept, its texts."""
        await self._arrived(caller, interaction)
        async with self._transaction(caller, read_only=True) as connection:
            found, by_break_glass = await self._one(connection, caller, interaction)
            decisions = await (await connection.execute(_DECISIONS, (interaction,))).fetchall()
            sealed = await (await connection.execute(_TEXTS, (interaction,))).fetchall()
        texts = {row[0]: self._opened(interaction, *row) for row in sealed}
        entry = entry_of(
            caller,
            "read",
            patient=found.patient,
            resource=f"Interaction/{interaction}",
            texts=sorted(texts),
        )
        if found.patient is None:
            await self._audit.journal(entry)
        else:
            await self._audit.record(_marked(entry, by_break_glass), deadline=caller.deadline)
        return Shown(found, [Decision(*row) for row in decisions], texts)

    def _opened(self, interaction: str, part: str, key: str, wrapped: bytes, data: bytes) -> Any:
        context = text_context(interaction, part)
        return orjson.loads(self._sealer.open(Sealed(key, bytes(wrapped), bytes(data)), context))

    async def _arrived(self, caller: Caller, interaction: str) -> None:
        """Give a row without a patient, which follows its answer, the time to come."""
        try:
            async with self._transaction(caller, read_only=True) as connection:
                await self._one(connection, caller, interaction)
        except NotFound:
            await asyncio.sleep(FLUSH_PERIOD_S + 0.2)

    async def _one(
        self, connection: psycopg.AsyncConnection[Any], caller: Caller, interaction: str
    ) -> tuple[Interaction, bool]:
        found = await connection.execute(_ONE, (interaction, caller.principal.id))
        row = await found.fetchone()
        if row is None:
            message = "There is no such interaction, or none that you may know of."
            raise NotFound(message, param="interaction", code="interaction_not_found")
        return Interaction(*row[:11]), row[11]

    def _transaction(self, caller: Caller, *, read_only: bool = False) -> Any:
        return self._database.transaction(
            deadline=caller.deadline,
            organization=caller.principal.organization,
            practitioner=caller.principal.practitioner or "",
            compartment=compartment(caller.principal),
            durable=False,
            read_only=read_only,
        )


def _listed(row: Sequence[Any]) -> Interaction:
    newest = None if row[11] is None else Decision(*row[11:])
    return replace(Interaction(*row[:11]), decision=newest)


def _marked(entry: AuditEntry, by_break_glass: bool) -> AuditEntry:
    """The entry with its purpose, where only break-glass opened the patient."""
    return replace(entry, purpose="BTG") if by_break_glass else entry
