"""What was done under an activation, for whoever judges it: from the chain of the emergency cell.

On that cell it is its own chain, on the site the entries that were brought back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import psycopg

from deployments.data import scopes
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import entry_of
from deployments.data.database import Database
from deployments.data.emergency.activation import COLUMNS, Activation
from deployments.data.errors import Forbidden, NotFound
from deployments.data.principal import Caller

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
ActKind = Literal["session", "read", "note", "chat", "denial", "other"]
PAGE = 200

_KINDS: dict[str, ActKind] = {
    **dict.fromkeys(("sign-in", "sign-out", "refresh", "step-up"), "session"),
    **dict.fromkeys(("read", "vread", "history", "search", "everything", "download"), "read"),
    "emergency-note": "note",
    **dict.fromkeys(("ai-request", "ai-answer"), "chat"),
}
_ONE = f"SELECT {COLUMNS} FROM emergency.activation WHERE id::text = %s"
_NEWEST = f"SELECT {COLUMNS} FROM emergency.activation ORDER BY activated_at DESC LIMIT 1"
_BROUGHT = "SELECT EXISTS (SELECT FROM emergency.entry WHERE activation::text = %s)"
# An act of the last second may be chained a little later.
_OWN = """
SELECT e.seq, e.body FROM audit.entry AS e
WHERE e.seq > greatest(%(after)s::bigint, %(first)s) AND e.at <= %(until)s + interval '10 s'
ORDER BY e.seq LIMIT %(count)s
"""
_THERE = """
SELECT e.seq, e.body FROM emergency.entry AS e
WHERE e.activation::text = %(id)s AND e.seq > %(after)s::bigint ORDER BY e.seq LIMIT %(count)s
"""
_COUNT_OWN = """
SELECT e.action, e.outcome, count(*) FROM audit.entry AS e
WHERE e.seq > %(first)s AND e.at <= %(until)s + interval '10 s' GROUP BY 1, 2
"""
_COUNT_THERE = """
SELECT e.body::jsonb ->> 'action', e.body::jsonb ->> 'outcome', count(*) FROM emergency.entry AS e
WHERE e.activation::text = %(id)s GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True)
class Act:
    """One entry, as a reviewer sees it."""

    seq: int
    at: str
    kind: ActKind
    action: str
    outcome: str
    actor: str
    role: str
    device: str
    patients: tuple[str, ...]
    resource: str | None
    request_id: str


@dataclass(frozen=True, slots=True)
class Review:
    """One activation and a page of its acts; `counts` are those of all of them by kind."""

    activation: Activation
    counts: dict[str, int]
    acts: tuple[Act, ...]
    next_after: int | None


class Reviews:
    """The review, as auditors and operators ask for it; on record before it is answered."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database, self._audit = database, audit

    async def page(
        self, caller: Caller, *, activation: str | None, after: int = 0, count: int = PAGE
    ) -> Review:
        """Acts after the sequence `after` of one activation, the newest unless named.

        Raises `Forbidden` or `NotFound`.
        """
        if not scopes.permits(caller.principal, "AuditEvent", "s"):
            raise Forbidden("This needs the scope AuditEvent.s.", code="insufficient_scope")
        async with self._database.transaction(
            deadline=caller.deadline,
            organization=caller.principal.organization,
            read_only=True,
        ) as connection:
            found = await _activation(connection, activation)
            rows, counts = await _acts(connection, found, after, count + 1)
        entry = entry_of(
            caller,
            "emergency-review",
            resource=f"Emergency/{found.id}",
            after=after,
            acts=len(rows),
        )
        await self._audit.record(entry, deadline=caller.deadline)
        acts = tuple(act_of(seq, body) for seq, body in rows[:count])
        further = acts[-1].seq if len(rows) > count else None
        return Review(found, counts, acts, further)


def act_of(seq: int, body: str) -> Act:
    """An entry of the chain as an act."""
    told = orjson.loads(body)
    several = told["details"].get("patients")
    patients = several if isinstance(several, list) else [told["patient"]]
    return Act(
        seq=seq,
        at=told["at"],
        kind=kind_of(told["action"], told["outcome"]),
        action=told["action"],
        outcome=told["outcome"],
        actor=told["actor"],
        role=told["role"],
        device=told["device"],
        patients=tuple(str(each) for each in patients if each),
        resource=told["resource"],
        request_id=told["request_id"],
    )


def kind_of(action: str, outcome: str) -> ActKind:
    """Which part of a review an entry belongs to."""
    return "denial" if outcome == "denied" else _KINDS.get(action, "other")


async def _activation(connection: Connection, id: str | None) -> Activation:
    cursor = await (connection.execute(_NEWEST) if id is None else connection.execute(_ONE, (id,)))
    row = await cursor.fetchone()
    if row is None:
        raise NotFound("There was no such emergency.", code="no_such_emergency")
    return Activation.of(row)


async def _acts(
    connection: Connection, found: Activation, after: int, count: int
) -> tuple[Sequence[tuple[int, str]], dict[str, int]]:
    row = await (await connection.execute(_BROUGHT, (found.id,))).fetchone()
    brought = bool(row and row[0])
    values = {
        "id": found.id,
        "after": after,
        "first": found.first_seq,
        "until": found.over_at,
        "count": count,
    }
    cursor = await connection.execute(_THERE if brought else _OWN, values)
    rows = [(seq, body) for seq, body in await cursor.fetchall()]
    cursor = await connection.execute(_COUNT_THERE if brought else _COUNT_OWN, values)
    counts: Counter[str] = Counter()
    for action, outcome, number in await cursor.fetchall():
        counts[kind_of(action, outcome)] += number
    return rows, dict(counts)
