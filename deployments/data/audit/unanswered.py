"""AI requests that were never closed: their process died between the intent and the outcome."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from deployments.data.database import Database

# `request_id` is the same in both entries; the interaction is what DUTIES puts in `details`.
_QUERY = """
SELECT r.id, r.at, r.body FROM audit.entry r
WHERE r.action = 'ai-request' AND r.outcome = 'success' AND r.at >= %(since)s AND r.at < %(until)s
AND NOT EXISTS (
    SELECT FROM audit.entry a WHERE a.action = 'ai-answer' AND a.at >= %(since)s
    AND a.body::jsonb -> 'details' ->> 'interaction' = r.body::jsonb -> 'details' ->> 'interaction'
)
ORDER BY r.seq LIMIT %(most)s
"""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An intent without an outcome, as it was chained."""

    id: UUID
    at: datetime
    entry: dict[str, Any]


async def unanswered(
    database: Database, *, since: datetime, until: datetime, deadline: float, most: int = 500
) -> list[Unanswered]:
    """`ai-request` entries between the two moments whose interaction has no `ai-answer` entry.

    For the custodian, across all organisations; oldest first. Entries still in a journal or outbox
    are not in the chain yet: leave `until` a few minutes behind.
    """
    async with database.transaction(deadline=deadline, read_only=True) as connection:
        await connection.execute("SELECT set_config('medrec.chain', 'verify', true)")
        cursor = await connection.execute(_QUERY, {"since": since, "until": until, "most": most})
        rows = await cursor.fetchall()
    return [Unanswered(id, at, orjson.loads(body)) for id, at, body in rows]
