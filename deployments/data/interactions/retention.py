"""What the custodian does for the interactions: forgets in time, and closes what nobody will."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import orjson

from deployments.data.audit.entry import AuditEntry
from deployments.data.database import Database
from deployments.data.interactions.ledger import AuditTrail

CUSTODIAN = "custodian"
BATCH = 500
FOLLOWED = 5_000
# An answer may still lie in a living replica's journal when its question is first seen.
KNOWN_S = 60.0


async def purge(database: Database, audit: AuditTrail, *, deadline: float) -> dict[str, int]:
    """Delete the sealed texts whose days are over; returns how many of each kind.

    With a row goes the only key of its text. Every batch is on record with its own transaction.
    """
    total: Counter[str] = Counter()
    while time.monotonic() < deadline:
        async with database.transaction(deadline=deadline, durable=False) as connection:
            found = await connection.execute(
                "SELECT organization, kind, texts FROM interactions.purge(%s)", (BATCH,)
            )
            rows = await found.fetchall()
            staged = [
                await audit.stage(connection, _purged(organization, kind, texts))
                for organization, kind, texts in rows
            ]
        await audit.settle(staged, deadline=deadline)
        for _, kind, texts in rows:
            total[kind] += texts
        if sum(texts for _, _, texts in rows) < BATCH:
            break
    return dict(total)


async def close_abandoned(
    database: Database,
    audit: AuditTrail,
    *,
    older_than_s: float,
    deadline: float,
    known_s: float = KNOWN_S,
) -> int:
    """Close questions without an answer as interrupted; returns how many.

    `older_than_s` is longer than any request lasts: whoever asked was killed, or could not write.
    """
    while await _follow(database, deadline) == FOLLOWED and time.monotonic() < deadline:
        pass
    closed = 0
    while time.monotonic() < deadline:
        async with database.transaction(deadline=deadline, durable=False) as connection:
            found = await connection.execute(
                "SELECT interaction, body FROM interactions.abandoned(%s, %s, %s)",
                (older_than_s, known_s, BATCH),
            )
            rows = await found.fetchall()
            now, staged = datetime.now(UTC), []
            for interaction, body in rows:
                await connection.execute(
                    "SELECT interactions.close_interrupted(%s, %s)", (interaction, now)
                )
                staged.append(await audit.stage(connection, _interrupted(orjson.loads(body))))
        await audit.settle(staged, deadline=deadline)
        closed += len(rows)
        if len(rows) < BATCH:
            break
    return closed


async def _follow(database: Database, deadline: float) -> int:
    async with database.transaction(deadline=deadline, durable=False) as connection:
        found = await connection.execute("SELECT interactions.follow(%s)", (FOLLOWED,))
        row = await found.fetchone()
    return 0 if row is None else int(row[0])


def _purged(organization: str, kind: str, texts: int) -> AuditEntry:
    return AuditEntry(
        action="purge",
        outcome="success",
        actor=CUSTODIAN,
        actor_kind="operator",
        role="service",
        organization=organization,
        purpose="HOPERAT",
        details={"kind": kind, "texts": texts, "reason": "retention"},
    )


def _interrupted(request: dict[str, Any]) -> AuditEntry:
    """The outcome of a question whose replica did not live to tell it; the asker stays its actor."""
    asked = request["details"]
    return AuditEntry(
        action="ai-answer",
        outcome="interrupted",
        actor=request["actor"],
        actor_kind=request["actor_kind"],
        role=request["role"],
        organization=request["organization"],
        request_id=request["request_id"],
        address=request["address"],
        device=request["device"],
        purpose=request["purpose"],
        patient=request["patient"],
        details={
            "interaction": asked["interaction"],
            "model": asked["model"],
            "weights_sha256": asked["weights_sha256"],
            "prompt_version": asked["prompt_version"],
            "output_sha256": None,
            "code": "replica_lost",
            "closed_by": CUSTODIAN,
        },
    )
