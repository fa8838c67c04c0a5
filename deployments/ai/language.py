"""The deployment of one language model: a Serve actor around `LanguageEngine`.

The engine's thread hands over tokens step by step; a chat's generator gathers them for a few
milliseconds before it yields, so that the number of messages does not grow with the number of tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

from ray.util.metrics import Counter, Gauge

from configs.engine import EngineConfig
from deployments.ai.client import ModelCard
from models.errors import EngineError, EngineStopped
from models.generation import ChatRequest, Done, Event, Failure, failure
from models.language import LanguageEngine

LOAD_TIMEOUT_S = 900.0
STALL_S = 60.0
METRICS_PERIOD_S = 1.0


class EventStream:
    """The events of one chat, on the event loop's side."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._events: list[Event] = []
        self._ready = asyncio.Event()

    def put(self, events: Sequence[Event]) -> None:
        """The engine's sink: called on the engine's thread."""
        self._mailbox.post(self, events)

    def receive(self, events: Sequence[Event]) -> None:
        """Called on the event loop."""
        self._events.extend(events)
        self._ready.set()

    async def take(self) -> list[Event]:
        """Wait for events; return all there are."""
        await self._ready.wait()
        self._ready.clear()
        events, self._events = self._events, []
        return events


class Mailbox:
    """Carries events from the engine's thread to the event loop, with one wake-up for many."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[tuple[EventStream, Sequence[Event]]] = deque()
        self._woken = False

    def post(self, stream: EventStream, events: Sequence[Event]) -> None:
        """Called on the engine's thread. The deque holds what one engine turn emitted, no more."""
        self._posted.append((stream, events))
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._woken = False
        while self._posted:
            stream, events = self._posted.popleft()
            stream.receive(events)


class Language:
    """One engine replica."""

    def __init__(self, model: str, source: str, engine: dict[str, Any]) -> None:
        """`source` is a model folder, or `owner/name@commit` of the hub.

        Raises ModelLoadError, which Serve reports as the deployment's failure.
        """
        repository, _, revision = source.partition("@")
        config = EngineConfig.model_validate(engine)
        self._model = model
        self._created = int(time.time())
        self._interval_s = config.stream_interval_ms / 1000
        self._ids = itertools.count()
        self._engine = LanguageEngine(repository, config, revision or None)
        self._engine.start(LOAD_TIMEOUT_S)
        self._mailbox = Mailbox(asyncio.get_running_loop())
        self._reporter = asyncio.get_running_loop().create_task(self._report())

    async def chat(self, request: ChatRequest) -> AsyncGenerator[list[Event], None]:
        """Events in batches, the last ending with `Done` or `Failure`; closing it cancels."""
        request = replace(request, id=f"{request.id}#{next(self._ids)}")
        stream = EventStream(self._mailbox)
        try:
            await self._submit(request, stream)
        except EngineError as error:
            yield [failure(error)]
            return
        ended = False
        try:
            while not ended:
                events = await stream.take()
                ended = isinstance(events[-1], Done | Failure)
                yield events
                if not ended and self._interval_s:
                    await asyncio.sleep(self._interval_s)
        finally:
            if not ended:
                self._engine.cancel(request.id)

    async def describe(self) -> ModelCard:
        """What `/v1/models` says of this model."""
        loaded = self._engine.model
        return ModelCard(
            id=self._model,
            created=self._created,
            context_length=self._engine.context_length,
            weights_sha256=loaded.weights_sha256,
            prompt_version=loaded.tokenizer.template_version,
        )

    async def memory(self) -> dict[str, int]:
        """Bytes that MLX holds in this process, which on a Mac no process table shows."""
        import mlx.core as mx

        return {
            "pid": os.getpid(),
            "active_bytes": mx.get_active_memory(),
            "cache_bytes": mx.get_cache_memory(),
        }

    async def check_health(self) -> None:
        """Serve replaces a replica whose engine has ended, or has been in one turn for a minute."""
        if not self._engine.is_alive:
            raise EngineStopped("the engine's thread has ended")
        if self._engine.stalled_s > STALL_S:
            raise EngineStopped(f"the engine has not turned for {self._engine.stalled_s:.0f} s")

    def __del__(self) -> None:
        """Serve's destructor hook, called once the replica's streams have ended."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            self._reporter.cancel()
            engine.stop()

    async def _submit(self, request: ChatRequest, stream: EventStream) -> None:
        # In a thread: tokenizing a long prompt, or compiling a schema, takes a while.
        submitted = asyncio.ensure_future(
            asyncio.to_thread(self._engine.submit, request, stream.put)
        )
        try:
            await asyncio.shield(submitted)
        except asyncio.CancelledError:
            submitted.add_done_callback(lambda _: self._engine.cancel(request.id))
            raise

    async def _report(self) -> None:
        """Publish the engine's numbers as metrics, labelled by the model."""
        gauges = {
            "waiting": Gauge("medrec_language_waiting", "Sequences that wait.", ("model",)),
            "running": Gauge("medrec_language_running", "Sequences that run.", ("model",)),
            "kv_promised_bytes": Gauge(
                "medrec_language_kv_promised_bytes", "KV promised to sequences.", ("model",)
            ),
            "prefix_cache_bytes": Gauge(
                "medrec_language_prefix_cache_bytes", "KV kept for reuse.", ("model",)
            ),
            "step_s": Gauge("medrec_language_step_seconds", "A decode step's time.", ("model",)),
        }
        counters = {
            name: Counter(f"medrec_language_{name}_total", text, ("model",))
            for name, text in (
                ("prefilled_tokens", "Prompt tokens computed."),
                ("cached_tokens", "Prompt tokens taken from the prefix cache."),
                ("decoded_tokens", "Tokens generated."),
                ("preemptions", "Sequences sent back to the queue for an emergency."),
            )
        }
        tags = {"model": self._model}
        last = dict.fromkeys(counters, 0)
        while True:
            stats = self._engine.stats
            for name, gauge in gauges.items():
                gauge.set(getattr(stats, name), tags)
            for name, counter in counters.items():
                new = getattr(stats, name)
                if new > last[name]:
                    counter.inc(new - last[name], tags)
                    last[name] = new
            await asyncio.sleep(METRICS_PERIOD_S)
