"""Activations of the emergency cell: begun by an edge, over by time or by word, all of it on record.

At most one is open. What the copy may miss is written down when it takes over, because later nobody
could tell it any more.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from configs.args import EmergencyArgs
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from deployments.data.database import Database
from deployments.data.errors import Conflict, NotFound
from deployments.edge.modes import State

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# Every activation and end waits its turn: two edges call at the same moment.
_LOCK = "SELECT pg_advisory_xact_lock(6374120009)"
COLUMNS = (
    "id::text, reason, host, since, activated_at, expires_at, ended_at, ended_by, copied_at,"
    " copy_age_s, patients, first_seq"
)
_LAST = f"SELECT {COLUMNS} FROM emergency.activation ORDER BY activated_at DESC LIMIT 1"
_EXPIRE = """
UPDATE emergency.activation SET ended_at = expires_at, ended_by = 'expiry'
WHERE ended_at IS NULL AND expires_at <= now()
"""
_OPEN = f"""
INSERT INTO emergency.activation
    (id, reason, host, since, expires_at, copied_at, copy_age_s, patients, first_seq)
SELECT %(id)s, %(reason)s, %(host)s, %(since)s, now() + make_interval(secs => %(lasts)s),
    h.at, extract(epoch FROM clock_timestamp() - h.at)::float8, %(patients)s, a.seq
FROM emergency.heartbeat AS h, audit.head AS a
RETURNING {COLUMNS}
"""
_PATIENTS = "SELECT count(*) FROM records.resource WHERE type = 'Patient' AND NOT deleted"
_END = f"""
UPDATE emergency.activation SET ended_at = now(), ended_by = %s WHERE id = %s
RETURNING {COLUMNS}
"""
# One that has expired opens again: whoever extends it has seen that the emergency goes on.
_EXTEND = f"""
UPDATE emergency.activation
SET expires_at = greatest(expires_at, now()) + make_interval(secs => %s),
    ended_at = NULL, ended_by = NULL
WHERE id = %s RETURNING {COLUMNS}
"""


@dataclass(frozen=True, slots=True)
class Activation:
    """One emergency. `copied_at` is when the site was last heard of through the copy."""

    id: str
    reason: str
    host: str
    since: datetime
    activated_at: datetime
    expires_at: datetime
    ended_at: datetime | None
    ended_by: str | None
    copied_at: datetime | None
    copy_age_s: float | None
    patients: int
    first_seq: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> Activation:
        """From a row of `COLUMNS`."""
        values: list[Any] = [
            value.astimezone(UTC) if isinstance(value, datetime) else value for value in row
        ]
        return cls(*values)

    def state(self, now: datetime) -> State:
        """Whether it serves, has run out, or was ended."""
        if self.ended_at is not None:
            return "expired" if self.ended_by == "expiry" else "standby"
        return "active" if now < self.expires_at else "expired"

    @property
    def over_at(self) -> datetime:
        """When it ended, or ends."""
        return self.expires_at if self.ended_at is None else self.ended_at

    @property
    def may_miss(self) -> str:
        """What the copy may lack, in a sentence."""
        if self.copy_age_s is None:
            return "This cell never had a copy of the site: no patient of the site is here."
        seconds = max(0, round(self.copy_age_s))
        return f"What was written on site in the last {seconds} s before the activation may be missing."


class Activations:
    """The emergency cell's activations, as one process reaches them."""

    def __init__(
        self, database: Database, audit: Audit, args: EmergencyArgs, organization: str
    ) -> None:
        self._database, self._audit, self._args = database, audit, args
        self._organization = organization

    async def last(self, *, deadline: float) -> Activation | None:
        """The newest activation, open or over."""
        async with self._database.transaction(deadline=deadline, read_only=True) as connection:
            return await _last(connection)

    async def activate(
        self, host: str, *, reason: str, since: datetime, request_id: str, deadline: float
    ) -> tuple[Activation, bool]:
        """The open activation, begun now unless there is one; tells whether it is new.

        Raises `Conflict` (`emergency_expired`) for one that has run out: an edge that starts again
        must not lengthen what an operator is to decide on.
        """
        async with self._database.transaction(
            deadline=deadline, organization=self._organization, compartment="all"
        ) as connection:
            await connection.execute(_LOCK)
            await connection.execute(_EXPIRE)
            found = await _last(connection)
            if found is not None and found.ended_at is None:
                return found, False
            if found is not None and found.ended_by == "expiry" and since <= found.since:
                message = "This emergency has expired: medrec emergency extend opens it again."
                raise Conflict(message, code="emergency_expired")
            opened = await self._opened(connection, host, reason, since)
            entry = self._entry(host, "activate", opened, request_id)
            staged = [await self._audit.stage(connection, entry)]
        await self._audit.settle(staged, deadline=deadline)
        return opened, True

    async def end(self, by: str, *, request_id: str, deadline: float) -> Activation | None:
        """End the open activation; None where there is none."""
        async with self._database.transaction(deadline=deadline) as connection:
            await connection.execute(_LOCK)
            await connection.execute(_EXPIRE)
            found = await _last(connection)
            if found is None or found.ended_at is not None:
                return None
            row = await (await connection.execute(_END, (by, found.id))).fetchone()
            assert row is not None
            ended = Activation.of(row)
            staged = [
                await self._audit.stage(connection, self._entry(by, "end", ended, request_id))
            ]
        await self._audit.settle(staged, deadline=deadline)
        return ended

    async def extend(self, by: str, *, request_id: str, deadline: float) -> Activation:
        """Let it last `lasts_s` longer, also one that has just expired. Raises `NotFound`."""
        async with self._database.transaction(deadline=deadline) as connection:
            await connection.execute(_LOCK)
            await connection.execute(_EXPIRE)
            found = await _last(connection)
            if found is None or (found.ended_at is not None and found.ended_by != "expiry"):
                raise NotFound("There is no emergency to extend.", code="emergency_not_active")
            cursor = await connection.execute(_EXTEND, (self._args.lasts_s, found.id))
            row = await cursor.fetchone()
            assert row is not None
            extended = Activation.of(row)
            staged = [
                await self._audit.stage(connection, self._entry(by, "extend", extended, request_id))
            ]
        await self._audit.settle(staged, deadline=deadline)
        return extended

    async def _opened(
        self, connection: Connection, host: str, reason: str, since: datetime
    ) -> Activation:
        counted = await (await connection.execute(_PATIENTS)).fetchone()
        values = {
            "id": uuid.uuid4(),
            "reason": reason,
            "host": host,
            "since": since,
            "lasts": self._args.lasts_s,
            "patients": counted[0] if counted else 0,
        }
        row = await (await connection.execute(_OPEN, values)).fetchone()
        assert row is not None
        return Activation.of(row)

    def _entry(self, by: str, act: str, about: Activation, request_id: str) -> AuditEntry:
        operator = by.startswith("operator:")
        return AuditEntry(
            action="emergency",
            outcome="success",
            actor=by,
            actor_kind="operator" if operator else "host",
            role="admin" if operator else "service",
            organization=self._organization,
            request_id=request_id,
            purpose="ETREAT",
            resource=f"Emergency/{about.id}",
            details={
                "act": act,
                "host": about.host,
                "since": about.since.isoformat(),
                "expires_at": about.expires_at.isoformat(),
                "copied_at": about.copied_at.isoformat() if about.copied_at else None,
                "copy_age_s": about.copy_age_s,
                "patients": about.patients,
            },
        )


async def _last(connection: Connection) -> Activation | None:
    row = await (await connection.execute(_LAST)).fetchone()
    return None if row is None else Activation.of(row)


def moment(unix: float) -> datetime:
    """A moment from Unix time in seconds; bounded, because it comes from another host."""
    return datetime.fromtimestamp(min(max(0.0, unix), time.time() + 86_400.0), UTC)
