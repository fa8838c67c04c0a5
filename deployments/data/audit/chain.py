"""The audit as the rest of the platform uses it: put on record, before the answer leaves.

`record` for reads: returns once the entry is in the chain. `stage` and `settle` for writes: the
entry commits with the write and is chained right after. `journal` for what touches no patient: on
this machine's disk at once, in the chain soon (docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from deployments.data.audit.appender import Appender
from deployments.data.audit.committer import Committer
from deployments.data.audit.entry import AuditEntry
from deployments.data.audit.forwarder import Forwarder
from deployments.data.audit.journal import Journal
from deployments.data.database import Database
from deployments.data.errors import StoreUnavailable

# A write that is repeated, its fate unknown, may find its entry there already.
_STAGE = b"INSERT INTO audit.outbox (id, body) VALUES (%s, %s) ON CONFLICT DO NOTHING"


class Audit:
    """One process's way into the chain. `enabled=False` records nothing: to measure what it costs."""

    def __init__(self, database: Database, journal_folder: Path, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._committer = Committer(
            Appender(database.dsn), failover_wait_s=database.failover_wait_s
        )
        self._journal = Journal(journal_folder)
        self._forwarder = Forwarder(self._journal, self._committer)
        self._started = False

    async def start(self) -> None:
        """Begin, and adopt what dead processes left in the journal. Waits for no database."""
        if self._enabled and not self._started:
            await self._journal.open()
            self._committer.start()
            self._forwarder.start()
            self._started = True

    async def close(self) -> None:
        """Chain what waits, for a few seconds at most; what the journal still holds stays there."""
        if self._started:
            self._started = False
            await self._forwarder.close()
            await self._committer.close()
            await self._journal.close()

    async def record(self, entry: AuditEntry, *, deadline: float) -> None:
        """Return once the entry is in the chain, durably; only then may the answer leave.

        Raises `StoreUnavailable` or `DeadlineExceeded`: then nothing may leave. Never call it
        inside a transaction: that would hold a connection while waiting.
        """
        if self._enabled:
            body = entry.body().decode()
            await self._committer.append([entry.id], [body], deadline=deadline)

    async def stage(self, connection: psycopg.AsyncConnection[Any], entry: AuditEntry) -> UUID:
        """Put the entry of a write into its own transaction. Hand the id to `settle` afterwards.

        Refuses while the chain is overrun, so that a write begins only where it can be settled.
        """
        if self._enabled:
            if self._committer.is_full:
                message = "too many requests wait for the audit chain"
                raise StoreUnavailable(message, code="audit_busy", retry_after_s=1.0)
            await connection.execute(_STAGE, [entry.id, entry.body().decode()])
        return entry.id

    async def settle(self, staged: Sequence[UUID], *, deadline: float) -> None:
        """After the commit of the staging transaction: return once both are durable.

        Raises `CommitUnknown`: the write was committed, and is lost only if the server is.
        """
        if self._enabled and staged:
            await self._committer.settle(staged, deadline=deadline)

    async def journal(self, entry: AuditEntry) -> None:
        """Return once the entry is on this machine's disk; it joins the chain in the background.

        Raises `StoreUnavailable` if the disk or the journal is full: then nothing may happen.
        """
        if self._enabled:
            await self._journal.append(entry.body())

    @property
    def queue_length(self) -> int:
        """Entries that wait for the next append."""
        return self._committer.waiting

    @property
    def group_size(self) -> int:
        """Entries of the last append."""
        return self._committer.last_group

    @property
    def groups(self) -> int:
        """Appends since the start."""
        return self._committer.groups

    @property
    def chained(self) -> int:
        """Entries appended since the start."""
        return self._committer.chained

    @property
    def journal_bytes(self) -> int:
        """What the journal holds on disk, of this process and of the dead ones that it adopted."""
        return self._journal.size

    @property
    def journal_lag_s(self) -> float:
        """Seconds that the oldest entry of the journal has waited for the chain; 0.0: none waits."""
        return self._journal.lag_s
