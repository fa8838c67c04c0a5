"""Reading the audit: for auditors and admins of an organisation, and on record itself.

Nothing is handed out before the entry that says who looked at what is in the chain.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import sql

from deployments.data import scopes
from deployments.data.audit.chain import Audit
from deployments.data.audit.codes import KINDS
from deployments.data.audit.entry import entry_of
from deployments.data.audit.fhir import OUTCOMES, audit_event
from deployments.data.database import Database
from deployments.data.errors import Forbidden, Invalid, NotFound
from deployments.data.principal import Caller
from deployments.data.repeating import repeated

DEFAULT_COUNT = 50
MAX_COUNT = 500
_STREAM_COUNT = 1000


@dataclass(frozen=True, slots=True)
class AuditPage:
    """AuditEvents, the newest first, and the cursor of the next page (None: this was the last)."""

    events: tuple[dict[str, Any], ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class AuditSearch:
    """What a search asks for; every condition given must hold.

    `action` is one of our words (entry.ACTIONS) or a letter of AuditEvent.action, `outcome` a code of
    AuditEvent.outcome or one of our words, `since` and `until` bound the time, `until` excluded.
    """

    patient: str | None = None
    agent: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> tuple[sql.Composable, list[Any]]:
        """The search as SQL over `audit.entry`. Raises `Invalid`."""
        if any(text and not text.isprintable() for text in (self.patient, self.agent)):
            raise Invalid("An id holds characters that no id has.", code="bad_id")
        parts: list[sql.Composable] = [sql.SQL("TRUE")]
        values: list[Any] = []
        if self.patient is not None:
            bare = self.patient.removeprefix("Patient/")
            names = [bare, f"Patient/{bare}"]
            self._add(parts, values, "(patient = ANY (%s) OR patients && %s::text[])", names, names)
        if self.agent is not None:
            self._add(parts, values, "actor = %s", self.agent)
        if self.action is not None:
            self._add(parts, values, "action = ANY (%s)", _actions(self.action))
        if self.outcome is not None:
            self._add(parts, values, "outcome = ANY (%s)", _outcomes(self.outcome))
        if self.since is not None:
            self._add(parts, values, "at >= %s", self.since)
        if self.until is not None:
            self._add(parts, values, "at < %s", self.until)
        return sql.SQL(" AND ").join(parts), values

    def on_record(self) -> dict[str, Any]:
        """The search as the chain keeps it: it holds ids, words and times alone."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in (
                *(("agent", self.agent), ("action", self.action), ("outcome", self.outcome)),
                *(("since", self.since), ("until", self.until)),
            )
            if value is not None
        }

    @staticmethod
    def _add(
        parts: list[sql.Composable], values: list[Any], text: LiteralString, *value: Any
    ) -> None:
        parts.append(sql.SQL(text))
        values += value


class AuditReader:
    """AuditEvents of the caller's organisation."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def read(self, caller: Caller, id: str) -> dict[str, Any]:
        """One AuditEvent. Raises `Forbidden` or `NotFound`."""
        self._require(caller, "r")
        try:
            wanted = uuid.UUID(id)
        except ValueError:
            wanted = None
        rows = []
        if wanted is not None and str(wanted) == id:
            rows = await self._rows(caller, sql.SQL("id = %s"), [wanted], 1)
        await self._on_record(caller, resource=f"AuditEvent/{id}", found=len(rows))
        if not rows:
            raise NotFound("There is no such AuditEvent.")
        return audit_event(*rows[0])

    async def search(
        self,
        caller: Caller,
        wanted: AuditSearch,
        *,
        count: int = DEFAULT_COUNT,
        cursor: str | None = None,
    ) -> AuditPage:
        """A page of AuditEvents, the newest first. Raises `Forbidden` or `Invalid`."""
        self._require(caller, "s")
        count = max(1, min(count, MAX_COUNT))
        condition, values = wanted.conditions()
        if cursor is not None:
            condition = sql.SQL("{} AND seq < %s").format(condition)
            values.append(_position(cursor))
        rows = await self._rows(caller, condition, values, count + 1)
        page, more = rows[:count], len(rows) > count
        await self._on_record(
            caller, patient=wanted.patient, found=len(page), search=wanted.on_record()
        )
        next_cursor = str(page[-1][0]) if more else None
        return AuditPage(tuple(audit_event(*row) for row in page), next_cursor)

    async def entries(
        self, caller: Caller, wanted: AuditSearch, *, timeout_s: float = 30.0
    ) -> AsyncIterator[dict[str, Any]]:
        """Every AuditEvent of a search, the oldest first, streamed: for exports.

        On record before the first one is handed out. `timeout_s` bounds each part, not the whole.
        """
        self._require(caller, "s")
        condition, values = wanted.conditions()
        await self._on_record(
            caller, patient=wanted.patient, export=True, search=wanted.on_record()
        )
        last = 0
        while True:
            after = sql.SQL("{} AND seq > %s").format(condition)
            rows = await self._rows(
                caller, after, [*values, last], _STREAM_COUNT, timeout_s=timeout_s, oldest=True
            )
            for row in rows:
                yield audit_event(*row)
            if len(rows) < _STREAM_COUNT:
                return
            last = rows[-1][0]

    def _require(self, caller: Caller, letter: scopes.Letter) -> None:
        if not scopes.permits(caller.principal, "AuditEvent", letter):
            raise Forbidden(f"This needs the scope AuditEvent.{letter}.", code="insufficient_scope")

    @repeated
    async def _rows(
        self,
        caller: Caller,
        condition: sql.Composable,
        values: Sequence[Any],
        count: int,
        *,
        timeout_s: float | None = None,
        oldest: bool = False,
    ) -> list[tuple[int, bytes, str]]:
        order = sql.SQL("ASC" if oldest else "DESC")
        query = sql.SQL(
            "SELECT seq, hash, body FROM audit.entry WHERE {} ORDER BY seq {} LIMIT %s"
        ).format(condition, order)
        deadline = caller.deadline if timeout_s is None else time.monotonic() + timeout_s
        async with self._database.transaction(
            deadline=deadline, organization=caller.principal.organization, read_only=True
        ) as connection:
            cursor = await connection.execute(query, [*values, count])
            return [(seq, bytes(hash), body) for seq, hash, body in await cursor.fetchall()]

    async def _on_record(
        self,
        caller: Caller,
        *,
        patient: str | None = None,
        resource: str = "AuditEvent",
        **details: Any,
    ) -> None:
        bare = patient.removeprefix("Patient/") if patient is not None else None
        entry = entry_of(caller, "audit-read", patient=bare, resource=resource, **details)
        await self._audit.record(entry, deadline=caller.deadline)


_LETTERS: Mapping[str, list[str]] = {
    letter: [action for action, kind in KINDS.items() if kind.letter == letter]
    for letter in "CRUDE"
}


def _actions(text: str) -> list[str]:
    if text in KINDS:
        return [text]
    if text in _LETTERS:
        return _LETTERS[text]
    raise Invalid("There is no such action of the audit.", param="action")


def _outcomes(text: str) -> list[str]:
    found = [word for word, code in OUTCOMES.items() if text in (word, code)]
    if not found and text != "12":
        raise Invalid("There is no such outcome.", param="outcome")
    return found


def _position(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise Invalid("The cursor is not one of this server's.", param="_cursor")
    return int(cursor)
