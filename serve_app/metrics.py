"""The API's own measurements, made with Ray's metrics so that one exposition covers the whole cell.

Labels are model, route template and status: never a user, never text.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from ray.util.metrics import Counter, Gauge, Histogram

from deployments.data.audit.chain import Audit
from deployments.data.blobs import Blobs
from deployments.data.database import Database
from serve_app.trace import Trace

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]


class Meters:
    """Counters of one API replica; Ray adds the replica's worker id as a label of its own."""

    def __init__(self) -> None:
        labels = ("route", "model", "status")
        self._requests = Counter(
            "medrec_http_requests", "Requests answered, by route, model and status.", labels
        )
        self._duration = Histogram(
            "medrec_http_request_duration_s",
            "Seconds from a request's arrival to the end of its answer.",
            _SECONDS,
            labels,
        )
        self._first_token = Histogram(
            "medrec_chat_first_token_s",
            "Seconds from a chat's arrival to its first token.",
            _SECONDS,
            ("model",),
        )
        self._tokens = Counter("medrec_chat_tokens", "Tokens of chats, by kind.", ("model", "kind"))
        self._in_progress = Gauge("medrec_chat_in_progress", "Chats now in progress.", ())
        self._chats = 0

    @property
    def chats_in_progress(self) -> int:
        """Chats that this replica is working on now."""
        return self._chats

    def chat_began(self) -> None:
        """One more chat is in progress."""
        self._chats += 1
        self._in_progress.set(self._chats)

    def chat_ended(self) -> None:
        """One chat less is in progress."""
        self._chats -= 1
        self._in_progress.set(self._chats)

    def request_ended(self, trace: Trace, route: str, status: int, duration_s: float) -> None:
        """Count one request; `trace.model` is empty or the id of a served model."""
        labels = {"route": route, "model": trace.model, "status": str(status)}
        self._requests.inc(1, labels)
        self._duration.observe(duration_s, labels)
        if trace.first_token_s is not None:
            self._first_token.observe(trace.first_token_s - trace.began_s, {"model": trace.model})
        counts = {
            "prompt": trace.prompt_tokens - trace.cached_tokens,
            "cached": trace.cached_tokens,
            "completion": trace.completion_tokens,
        }
        for kind, count in counts.items():
            if count > 0:
                self._tokens.inc(count, {"model": trace.model, "kind": kind})


class DataGauges:
    """What this replica's way to the records is like, looked at every few seconds."""

    PERIOD_S = 5.0

    def __init__(self, audit: Audit, database: Database, blobs: Blobs) -> None:
        self._audit = audit
        self._database = database
        self._blobs = blobs
        self._task: asyncio.Task[None] | None = None
        self._queue = Gauge("medrec_audit_queue", "Entries that wait for the chain.", ())
        self._group = Gauge("medrec_audit_group", "Entries of the last group commit.", ())
        self._journal = Gauge("medrec_audit_journal_bytes", "Bytes in the local journal.", ())
        self._lag = Gauge("medrec_audit_journal_lag_s", "Age of its oldest entry in seconds.", ())
        self._connections = Gauge(
            "medrec_database_connections", "Connections of the pool, by state.", ("state",)
        )
        self._fetched = Counter("medrec_blobs_fetched", "Blobs fetched from the other cell.", ())
        self._kept_single = Counter(
            "medrec_blobs_kept_single", "Uploads that only this machine had when acknowledged.", ()
        )
        self._told = (0, 0)

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            self._queue.set(self._audit.queue_length)
            self._group.set(self._audit.group_size)
            self._journal.set(self._audit.journal_bytes)
            self._lag.set(self._audit.journal_lag_s)
            for state, count in self._database.figures().items():
                self._connections.set(count, {"state": state})
            self._show_blobs()
            await asyncio.sleep(self.PERIOD_S)

    def _show_blobs(self) -> None:
        now = (self._blobs.fetched, self._blobs.singles)
        for counter, count, told in zip(
            (self._fetched, self._kept_single), now, self._told, strict=True
        ):
            if count > told:
                counter.inc(count - told)
        self._told = now
