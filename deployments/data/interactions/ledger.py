"""The ledger of AI interactions: a question before its first token, its outcome before its end.

About a patient, both stand in the audit chain and in the ledger by one transaction each. Without a
patient the audit's local journal is enough to go on, and the ledger's row follows in the background:
such a chat does not wait for the database.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psycopg

from configs.args import Retention
from deployments.data.audit.entry import AuditEntry, entry_of
from deployments.data.database import Compartment, Database
from deployments.data.errors import (
    CommitUnknown,
    DataError,
    DeadlineExceeded,
    StoreUnavailable,
)
from deployments.data.interactions.interaction import Answered, Asked
from deployments.data.principal import Caller
from deployments.data.repeating import repeat
from deployments.data.scopes import compartment
from deployments.data.seal.sealer import Sealer

FLUSH_PERIOD_S = 0.5
FLUSH_DEADLINE_S = 5.0
MAX_PENDING = 10_000  # rows without a patient that wait for the database; the audit has them anyway
_LARGE = 256 * 1024  # bytes from which sealing leaves the event loop

# After these the same rows may be written later.
_PASSING = (StoreUnavailable, DeadlineExceeded, CommitUnknown)

Connection = psycopg.AsyncConnection[Any]

_log = logging.getLogger("medrec.interactions")

_INSERT = """
INSERT INTO interactions.interaction (id, organization, account, account_kind, patient, model,
    weights_sha256, prompt_version, input_sha256, started_at)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING
"""
_END = """
UPDATE interactions.interaction SET output_sha256 = %s, ended_at = %s, outcome = %s
WHERE id = %s AND ended_at IS NULL
"""
_KEEP = """
INSERT INTO interactions.short_lived (id, kind, part, interaction, organization, patient, owner,
    created_at, expires_at, key_id, wrapped_key, data)
VALUES (%s, 'chat', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (id) DO NOTHING
"""
_BY_BREAK_GLASS = "SELECT records.by_break_glass(%s)"


class AuditTrail(Protocol):
    """What the ledger asks of the audit (`deployments.data.audit.chain.Audit`)."""

    async def stage(
        self, connection: psycopg.AsyncConnection[Any], entry: AuditEntry
    ) -> uuid.UUID: ...

    async def settle(self, staged: Sequence[uuid.UUID], *, deadline: float) -> None: ...

    async def journal(self, entry: AuditEntry) -> None: ...


@dataclass(frozen=True, slots=True)
class _Row:
    """A statement that waits for the database."""

    organization: str
    sql: str
    values: tuple[Any, ...]


class Ledger:
    """Writes interactions. Start and close it on one event loop."""

    def __init__(
        self, database: Database, sealer: Sealer, audit: AuditTrail, retention: Retention
    ) -> None:
        self._database = database
        self._sealer = sealer
        self._audit = audit
        self._keep_days = retention.chats_days
        self._pending: deque[_Row] = deque()
        self._flusher: asyncio.Task[None] | None = None

    @property
    def keeps_texts(self) -> bool:
        """Whether the texts of chats about patients are kept for a while."""
        return self._keep_days > 0

    async def start(self) -> None:
        """Begin to write what has been put aside."""
        self._flusher = asyncio.create_task(self._flush_often())

    async def close(self) -> None:
        """Write what is left, if the database is there, and stop."""
        if self._flusher is not None:
            self._flusher.cancel()
            with suppress(asyncio.CancelledError):
                await self._flusher
            self._flusher = None
        with suppress(DataError):
            await self._flush()

    async def begin(self, caller: Caller, asked: Asked) -> None:
        """Put the question on record. Returns before any token may be asked of the engine.

        About a patient: durably in the chain, or `StoreUnavailable`, `DeadlineExceeded`,
        `CommitUnknown`, or `Forbidden` where row-level security does not show the patient.
        """
        entry = entry_of(caller, "ai-request", patient=asked.patient, **asked.details())
        if asked.patient is None:
            await self._audit.journal(entry)
            self._later(caller, _INSERT, _row(caller, asked))
            return
        sealed = await self._sealed(caller, asked, "input", asked.text, asked.at)

        async def begun(connection: Connection) -> AuditEntry:
            await connection.execute(_INSERT, _row(caller, asked))
            if sealed is not None:
                await connection.execute(_KEEP, sealed)
            found = await connection.execute(_BY_BREAK_GLASS, (asked.patient,))
            row = await found.fetchone()
            return replace(entry, purpose="BTG") if row is not None and row[0] else entry

        await self._settled(caller, compartment(caller.principal), begun)

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None:
        """Put the outcome on record; the same errors."""
        entry = entry_of(
            caller,
            "ai-answer",
            answered.outcome,
            patient=asked.patient,
            **answered.details(asked),
        )
        values = (answered.output_sha256, _moment(answered.at), answered.outcome, asked.id)
        if asked.patient is None:
            await self._audit.journal(entry)
            self._later(caller, _END, values)
            return
        sealed = await self._sealed(caller, asked, "output", answered.text, answered.at)

        async def ended(connection: Connection) -> AuditEntry:
            await connection.execute(_END, values)
            if sealed is not None:
                await connection.execute(_KEEP, sealed)
            return entry

        # Who was let begin may end, also if the care relationship ended in between.
        await self._settled(caller, "all", ended)

    async def _settled(
        self,
        caller: Caller,
        compartment: Compartment,
        work: Callable[[Connection], Awaitable[AuditEntry]],
    ) -> None:
        """`work` and the entry that it returns, durably. Over a failover too: every id was given
        beforehand, so that what has happened is found done.
        """

        async def once() -> None:
            async with self._database.transaction(
                deadline=caller.deadline,
                organization=caller.principal.organization,
                practitioner=caller.principal.practitioner or "",
                compartment=compartment,
                durable=False,
            ) as connection:
                staged = await self._audit.stage(connection, await work(connection))
            await self._audit.settle([staged], deadline=caller.deadline)

        await repeat(once, deadline=caller.deadline, even_unknown=True)

    async def _sealed(
        self, caller: Caller, asked: Asked, part: str, text: bytes, at: float
    ) -> tuple[Any, ...] | None:
        """The row of a sealed text; None where none is kept."""
        if not self._keep_days or not text:
            return None
        context = text_context(asked.id, part)
        if len(text) > _LARGE:
            sealed = await asyncio.to_thread(self._sealer.seal, text, context)
        else:
            sealed = self._sealer.seal(text, context)
        created = _moment(at)
        return (
            *(uuid.uuid4(), part, asked.id, caller.principal.organization, asked.patient),
            *(caller.principal.id, created, created + timedelta(days=self._keep_days)),
            *(sealed.key_id, sealed.wrapped_key, sealed.data),
        )

    def _later(self, caller: Caller, sql: str, values: tuple[Any, ...]) -> None:
        if len(self._pending) >= MAX_PENDING:
            self._pending.popleft()
        self._pending.append(_Row(caller.principal.organization, sql, values))

    async def _flush_often(self) -> None:
        healthy = True
        while True:
            await asyncio.sleep(FLUSH_PERIOD_S)
            try:
                await self._flush()
                healthy = True
            except Exception as error:  # whatever it is, the next row must find this task alive
                if healthy:
                    _log.warning("the ledger waits for the database: %s", type(error).__name__)
                healthy = False

    async def _flush(self) -> None:
        """Write what waits, organisation by organisation, each in the order in which it came."""
        while self._pending:
            organization = self._pending[0].organization
            batch: list[_Row] = []
            while self._pending and self._pending[0].organization == organization:
                batch.append(self._pending.popleft())
            try:
                await self._write(organization, batch)
            except BaseException as error:
                if isinstance(error, DataError) and not isinstance(error, _PASSING):
                    # Repeated, it would only hold up all that follow; the chain has these chats.
                    _log.error("the ledger gave up %d rows: %s", len(batch), error.code)
                    continue
                self._pending.extendleft(reversed(batch))
                raise

    async def _write(self, organization: str, batch: Sequence[_Row]) -> None:
        async with self._database.transaction(
            deadline=time.monotonic() + FLUSH_DEADLINE_S,
            organization=organization,
            compartment="none",
            durable=False,
        ) as connection:
            for row in batch:
                await connection.execute(row.sql, row.values)


def text_context(interaction: str, part: str) -> bytes:
    """What a sealed text is bound to, so that none can be put in another's place."""
    return f"interaction/{interaction}/{part}".encode()


def _row(caller: Caller, asked: Asked) -> tuple[Any, ...]:
    who = caller.principal
    return (
        *(asked.id, who.organization, who.id, who.kind, asked.patient, asked.model),
        *(asked.weights_sha256, asked.prompt_version, asked.input_sha256, _moment(asked.at)),
    )


def _moment(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)
