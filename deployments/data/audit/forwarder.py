"""Takes the journal to the chain: in order, in the background, for as long as it takes.

An entry leaves the journal only once the chain has it durably; a crash in between repeats it, which
the chain ignores, because ids are unique.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

import orjson

from deployments.data.audit.committer import Committer
from deployments.data.audit.entry import AuditEntry
from deployments.data.audit.journal import Batch, Journal
from deployments.data.errors import DataError, DeadlineExceeded, StoreUnavailable

_log = logging.getLogger("medrec.audit")

_CHUNK = 256
# Entries gather for a moment, so that the chain's appends carry several of them.
_GATHER_S = 0.2
_ADOPT_EVERY_S = 30.0
_APPEND_TIMEOUT_S = 5.0
_FIRST_BACKOFF_S, _LAST_BACKOFF_S = 0.1, 5.0
_STOP_TIMEOUT_S = 2.0


class Forwarder:
    """One task between a journal and a committer."""

    def __init__(self, journal: Journal, committer: Committer) -> None:
        self._journal = journal
        self._committer = committer
        self._task: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._ending = asyncio.Event()
        self.forwarded = 0
        self.damaged = 0

    def start(self) -> None:
        """Begin, with whatever was adopted."""
        self._ending.clear()
        self._journal.written.set()
        self._task = asyncio.create_task(self._run(), name="audit-forwarder")

    async def close(self) -> None:
        """Forward what is left, for two seconds at most; the files keep the rest."""
        task, self._task = self._task, None
        if task is None:
            return
        self._drained.clear()
        self._ending.set()
        self._journal.written.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._drained.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _run(self) -> None:
        next_adoption = time.monotonic() + _ADOPT_EVERY_S
        while True:
            with suppress(TimeoutError):
                # Not wait_for: before Python 3.12 it may swallow a cancellation.
                async with asyncio.timeout(max(0.0, next_adoption - time.monotonic())):
                    await self._journal.written.wait()
                async with asyncio.timeout(_GATHER_S):
                    await self._ending.wait()
            try:
                if time.monotonic() >= next_adoption:
                    next_adoption = time.monotonic() + _ADOPT_EVERY_S
                    await self._journal.adopt()
                self._journal.written.clear()
                await self._drain()
                self._drained.set()
            except Exception as error:  # a failing disk must not end the task
                _log.critical("the audit journal cannot be read: %s", type(error).__name__)
                self._journal.written.set()
                await asyncio.sleep(_LAST_BACKOFF_S)

    async def _drain(self) -> None:
        while (batch := await self._journal.next_batch()) is not None:
            for at in range(0, len(batch.scan.bodies), _CHUNK):
                await self._forward(batch, batch.scan.bodies[at : at + _CHUNK])
            await self._report(batch)
            self._journal.chained(batch)

    async def _forward(self, batch: Batch, bodies: Sequence[bytes]) -> None:
        ids = [UUID(orjson.loads(body)["id"]) for body in bodies]
        texts = [body.decode() for body in bodies]
        try:
            await self._append(ids, texts)
        except DataError:
            for id, text in zip(ids, texts, strict=True):
                try:
                    await self._append([id], [text])
                except DataError as error:
                    # Sound in the journal, and yet refused: its id is chained with another body.
                    batch.segment.damaged = True
                    self.damaged += 1
                    _log.critical("journal entry %s is not chained: %s", id, error.code)
        self.forwarded += len(bodies)

    async def _append(self, ids: Sequence[UUID], texts: Sequence[str]) -> None:
        """Append, however long the database is away."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                deadline = time.monotonic() + _APPEND_TIMEOUT_S
                return await self._committer.append(ids, texts, deadline=deadline)
            except (StoreUnavailable, DeadlineExceeded):
                await asyncio.sleep(backoff_s * random.uniform(0.7, 1.3))
                backoff_s = min(_LAST_BACKOFF_S, backoff_s * 2)

    async def _report(self, batch: Batch) -> None:
        """Say what of a journal is no sound entry, in the log and, if it was damaged, in the chain."""
        name = batch.segment.path.name
        for fault in batch.faults:
            at = batch.offset + fault.offset
            if fault.kind == "torn":
                _log.warning("journal %s ends within an entry at byte %d", name, at)
                continue
            self.damaged += 1
            batch.segment.damaged = True
            _log.critical("journal %s is damaged at byte %d (%d bytes)", name, at, fault.length)
            found = AuditEntry(
                action="audit-verify",
                outcome="failed",
                actor="audit-journal",
                actor_kind="operator",
                role="service",
                organization=_organization(batch.scan.bodies),
                details={"journal": name, "offset": at, "length": fault.length},
            )
            await self._append([found.id], [found.body().decode()])


def _organization(bodies: Sequence[bytes]) -> str:
    """Whose entries these are, so that its auditors see what became of their journal."""
    return str(orjson.loads(bodies[-1])["organization"]) if bodies else ""
