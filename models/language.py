"""The language engine: continuous batching of one mlx-lm model on one pinned thread.

Between two decode steps the thread gives waiting prompts a slice of time, in chunks; it picks the
prompt of the highest priority and the least-served user, resumes it from the prefix cache where it
can, and lets it join a decode batch when its last token is due.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from configs.engine import EngineConfig
from models import blas
from models.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineStopped,
    InvalidRequest,
    QueueFull,
)
from models.generation import ChatRequest
from models.sequences import Call, EngineStats, Sink, deadline_of, sequences_of

if TYPE_CHECKING:
    from models.engine_loop import EngineLoop

logger = logging.getLogger(__name__)

_IDLE_WAIT_S = 0.25
_EXPIRY_PERIOD_S = 0.05
_GIB = 1024**3


class LanguageEngine:
    """Loads a model folder and answers `ChatRequest`s; every public method is thread-safe."""

    def __init__(
        self, path: str, config: EngineConfig | None = None, revision: str | None = None
    ) -> None:
        """`path` is an mlx-lm model folder, or a hub repository when `revision` pins its commit."""
        self.config = config or EngineConfig()
        self._path = path
        self._revision = revision
        self._wake = threading.Condition()
        self._inbox: deque[Call] = deque()
        self._cancelled: deque[Call] = deque()
        self._in_engine: dict[str, Call] = {}
        self._arrivals = 0
        self._stopping = False
        self._failure: BaseException | None = None
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mlx:{path}", daemon=True)
        self._turned_s = time.monotonic()
        self.stats = EngineStats()

    def start(self, timeout_s: float = 600.0) -> None:
        """Load the model; returns when it can answer. Raises ModelLoadError, or EngineStopped late."""
        self._thread.start()
        if not self._loaded.wait(timeout_s):
            raise EngineStopped(f"{self._path} did not load within {timeout_s:g} s")
        if self._failure is not None:
            self._thread.join(timeout_s)
            raise self._failure

    def stop(self, timeout_s: float = 30.0) -> None:
        """End every call with EngineStopped, free the model, end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive() and not self._stopping

    @property
    def stalled_s(self) -> float:
        """Seconds since the thread last began a turn; turns follow each other even when idle."""
        return time.monotonic() - self._turned_s

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer that a request may have."""
        return min(self.config.max_context or self.model.context_length, self.model.context_length)

    def submit(self, request: ChatRequest, sink: Sink) -> None:
        """Take a request; its events go to `sink`, on the engine's thread, in batches.

        The last batch ends with `Done` or `Failure`, unless the request is cancelled. Raises an
        `EngineError` at once for a request that cannot be served: invalid, too long, queue full.
        """
        if not self.is_alive:
            raise EngineStopped("The engine is not running.")
        if len(self._in_engine) >= self.config.max_queued + self.config.max_running:
            raise self._queue_full()
        call = self._call(request, sink)
        with self._wake:
            if self._stopping:
                raise EngineStopped("The engine is not running.")
            queued = sum(len(c.sequences) for c in self._in_engine.values())
            if queued + request.n > self.config.max_queued + self.config.max_running:
                raise self._queue_full()
            if request.id in self._in_engine:
                raise InvalidRequest("A request of this id is already running.", param="id")
            self._in_engine[request.id] = call
            self._inbox.append(call)
            self._wake.notify()

    def cancel(self, request_id: str) -> None:
        """End a request within one step, without further events; unknown ids are ignored."""
        with self._wake:
            call = self._in_engine.get(request_id)
            if call is not None:
                self._cancelled.append(call)
                self._wake.notify()

    def _queue_full(self) -> QueueFull:
        waiting_s = 1.0 + self.stats.waiting * self.stats.step_s
        return QueueFull("The engine's queue is full.", retry_after_s=round(min(waiting_s, 60.0)))

    def _call(self, request: ChatRequest, sink: Sink) -> Call:
        tokenizer = self.model.tokenizer
        prompt, boundary = tokenizer.encode_chat(request.messages)
        room = self.context_length - len(prompt)
        if room < 1 or (request.max_tokens is not None and request.max_tokens > room):
            asked = len(prompt) + (request.max_tokens or 1)
            raise ContextLengthExceeded(
                f"This model's context is {self.context_length} tokens; the prompt has "
                f"{len(prompt)}, and {asked} were asked for with the answer.",
                param="messages",
            )
        for token in request.sampling.logit_bias:
            if not 0 <= token < self.model.vocabulary:
                raise InvalidRequest(
                    f"{token} is not a token of this model (0 to {self.model.vocabulary - 1}).",
                    param="logit_bias",
                )
        max_tokens = request.max_tokens or min(room, self.config.default_max_tokens)
        kv_bytes = self._kv_bytes(len(prompt) + max_tokens)
        if kv_bytes > self.config.kv_cache_gb * _GIB:
            raise ContextLengthExceeded(
                f"{len(prompt) + max_tokens} tokens need more key-value memory than this server "
                "gives a request.",
                param="messages",
            )
        call = Call(request, prompt, boundary, max_tokens, tokenizer, sink, deadline_of(request))
        with self._wake:
            arrival = self._arrivals
            self._arrivals += request.n
        call.sequences = sequences_of(call, kv_bytes, arrival)
        return call

    def _kv_bytes(self, tokens: int) -> int:
        return 0 if self.model.kv is None else self.model.kv.bytes_for(tokens)

    def _run(self) -> None:
        try:
            blas.preload(self.config.threads)
            # Only now: whatever imports MLX must come after the BLAS.
            from models import loading
            from models.engine_loop import EngineLoop

            self.model = loading.load(self._path, self._revision, self.config.dtype)
            loop = EngineLoop(self.model, self.config)
        except BaseException as error:
            self._failure = error
            if "mlx.core" in sys.modules:
                _free_thread()
            return
        finally:
            self._loaded.set()
        try:
            self._serve(loop)
        finally:
            with self._wake:
                self._stopping = True
                left = list(self._in_engine.values())
                self._in_engine.clear()
            for call in left:
                if not call.ended:
                    call.fail(
                        EngineStopped("The engine stopped; it is safe to repeat the request.")
                    )
                _delivered(call)
            del loop, self.model
            _free_thread()

    def _serve(self, loop: EngineLoop) -> None:
        next_expiry = 0.0
        while True:
            with self._wake:
                if not (self._inbox or self._cancelled or self._stopping or loop.is_busy):
                    self._wake.wait(_IDLE_WAIT_S)
                if self._stopping:
                    return
                arrived, cancelled = list(self._inbox), list(self._cancelled)
                self._inbox.clear()
                self._cancelled.clear()
                self._turned_s = now = time.monotonic()
                expired: list[Call] = []
                if now >= next_expiry:
                    next_expiry = now + _EXPIRY_PERIOD_S
                    expired = [c for c in self._in_engine.values() if c.deadline <= now]
            for call in arrived:
                loop.add(call)
            for call in cancelled:
                loop.drop(call)
            for call in expired:
                loop.fail(call, DeadlineExceeded("The request's deadline passed."))
            loop.turn()
            self._settle(loop)

    def _settle(self, loop: EngineLoop) -> None:
        """Send what was emitted in this turn, forget ended calls, publish the statistics."""
        for call in loop.touched():
            if not _delivered(call):
                loop.drop(call)
            if call.ended:
                with self._wake:
                    if self._in_engine.get(call.request.id) is call:
                        del self._in_engine[call.request.id]
        self.stats = loop.stats()


def _delivered(call: Call) -> bool:
    """Hand a call's events over; False when its sink does not take them."""
    try:
        call.flush()
    except Exception as error:
        # Its text may hold what the sink was given.
        logger.error("the sink of %s failed: %s", call.request.id, type(error).__name__)
        return False
    return True


def _free_thread() -> None:
    """Free what MLX holds for this thread; its streams must end on the thread that made them."""
    import mlx.core as mx

    mx.synchronize()
    mx.clear_cache()
    mx.clear_streams()
