"""How the API process speaks to the AI virtual node: one protocol, and its implementation on Ray.

One streaming handle call serves one chat. Serve carries it over gRPC between processes: a fifth of
the CPU time of Ray's own actor calls, and unlike them it passes a cancel on (docs/serving.md).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RequestCancelledError,
)

from deployments.ai.streams import Call
from deployments.options import RETRY_AFTER_S
from models.errors import (
    DeadlineExceeded,
    EngineError,
    EngineStopped,
    MemoryPressure,
    ModelNotFound,
    Overloaded,
)
from models.generation import ChatRequest, Done, Event, Failure, failure

logger = logging.getLogger("ray.serve")

POLL_PERIOD_S = 1.0
POLL_TIMEOUT_S = 2.0
WATCH_PERIOD_S = 0.25
SILENCE_S = 1.0  # after which the watch asks whether the replica still lives
ASSIGN_TIMEOUT_S = 30.0
DEADLINE_MARGIN_S = 5.0  # the engine keeps the deadline itself; this is for an engine that cannot
PRESSURE_RETRY_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model as `/v1/models` lists it. `created` is Unix time in seconds.

    `prompt_version` names the template that makes prompts of messages: 12 digits of its SHA-256.
    """

    id: str
    created: int
    context_length: int
    weights_sha256: str
    prompt_version: str = "none"


@dataclass(frozen=True, slots=True)
class CellState:
    """What a cell serves, and which pools the memory guard has closed.

    `closed` maps a pool name (`ai`, `api`, `data`) to the guard's reason in a sentence. `loading`
    names the configured models that have not answered yet, `running` counts each model's replicas,
    and `gone` holds the actor ids of replicas whose process no longer exists.
    """

    models: tuple[ModelCard, ...]
    closed: Mapping[str, str]
    loading: tuple[str, ...] = ()
    running: Mapping[str, int] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


class LanguageService(Protocol):
    """The language models of this cell."""

    def state(self) -> CellState:
        """The last known state (refreshed in the background about once a second); never waits."""

    def chat(
        self, model: str, request: ChatRequest, session: str
    ) -> AsyncIterator[Sequence[Event]]:
        """Events of one chat, in batches as they come; ends with `Done` or `Failure`.

        `session` names the conversation, so that its turns reach the same replica and its prefix
        cache. Closing the iterator early cancels the generation within one engine step. A replica
        that dies mid-stream yields a `Failure` (503) within 2 s. Raises `ModelNotFound`.
        """


class RayLanguageService:
    """`LanguageService` over the Serve application `ai`. Start and close it on one event loop.

    `connect` gives the handle of a deployment by its name.
    """

    def __init__(self, connect: Callable[[str], Any] | None = None) -> None:
        self._connect = connect or _deployment_of_ai
        self._state = CellState(models=(), closed={})
        self._heard_s: float | None = None
        self._handles: dict[str, Any] = {}
        self._calls: set[Call] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow the cell's state and to watch the calls."""
        # A fresh context: Serve would tie calls made in a request's context to that request.
        for loop in (self._poll(), self._watch()):
            task = asyncio.create_task(loop, context=contextvars.Context())
            self._tasks.append(task)

    async def close(self) -> None:
        """End the calls in progress and stop following."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for call in list(self._calls):
            call.end(EngineStopped("this API process is stopping"))

    def state(self) -> CellState:
        """The last state that the cell told; empty before the first. `state_age_s` says how old."""
        return self._state

    def state_age_s(self) -> float:
        """Seconds since the cell last told its state; infinite before the first time."""
        return float("inf") if self._heard_s is None else time.monotonic() - self._heard_s

    def chat(
        self, model: str, request: ChatRequest, session: str
    ) -> AsyncIterator[Sequence[Event]]:
        """See `LanguageService.chat`."""
        state = self._state
        refusal = _refusal(model, state, known=self._heard_s is not None)
        if isinstance(refusal, ModelNotFound):
            raise refusal
        return self._stream(model, request, session, refusal)

    async def _stream(
        self, model: str, request: ChatRequest, session: str, refusal: EngineError | None
    ) -> AsyncIterator[Sequence[Event]]:
        if refusal is not None:
            yield (failure(refusal),)
            return
        handle = self._handle(model).options(
            stream=True,
            session_id=session,
            # Plain records: Serve's default, cloudpickle, takes three times as long over each.
            request_serialization="pickle",
            response_serialization="pickle",
        )
        deadline_s = time.monotonic() + request.timeout_s + DEADLINE_MARGIN_S
        call = Call(model, handle.chat.remote(request), deadline_s)
        self._calls.add(call)
        ended = False
        try:
            while not ended:
                try:
                    events: Sequence[Event] = await anext(call.response)
                except Exception as error:
                    events = (failure(_translated(error, call)),)
                call.heard()
                ended = bool(events) and isinstance(events[-1], Done | Failure)
                yield events
        finally:
            self._calls.discard(call)
            # Also after an end: a generator that goes on after `Failure` must not.
            call.cancel()

    def _handle(self, model: str) -> Any:
        if model not in self._handles:
            self._handles[model] = self._connect(model)
        return self._handles[model]

    async def _poll(self) -> None:
        healthy = True
        while True:
            try:
                # Not wait_for: on Python 3.11 it can swallow a cancel.
                async with asyncio.timeout(POLL_TIMEOUT_S):
                    self._state = await self._handle("cell").state.remote()
                self._heard_s = time.monotonic()
                healthy = True
            except Exception as error:
                if healthy:
                    logger.warning("the cell does not tell its state: %s", type(error).__name__)
                healthy = False
            await asyncio.sleep(POLL_PERIOD_S)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_PERIOD_S)
            now_s = time.monotonic()
            for call in list(self._calls):
                error = verdict(call, self._state, now_s)
                if error is None or call.error is not None:
                    continue
                logger.warning("ended a call to %s: %s", call.model, error.message)
                try:
                    call.end(error)
                except Exception as failed:  # the watch must outlive any one call
                    logger.error("a call could not be ended: %s", type(failed).__name__)


def _deployment_of_ai(name: str) -> Any:
    return serve.get_deployment_handle(name, "ai")


def verdict(call: Call, state: CellState, now_s: float) -> EngineError | None:
    """Why a call must end now, if it must. Times are those of the monotonic clock."""
    if now_s > call.deadline_s:
        return DeadlineExceeded("the engine did not answer within the request's time")
    if not call.is_assigned:
        if now_s - call.started_s <= ASSIGN_TIMEOUT_S:
            return None
        if state.running.get(call.model, 0) == 0:
            return EngineStopped(f"{call.model} has no replica running", retry_after_s=5.0)
        return Overloaded(f"no replica of {call.model} is free", retry_after_s=RETRY_AFTER_S)
    if now_s - call.heard_s > SILENCE_S and call.replica in state.gone:
        return EngineStopped(f"the replica of {call.model} that served this request has died")
    return None


def _refusal(model: str, state: CellState, *, known: bool) -> EngineError | None:
    if not known:
        return EngineStopped("the cell has not told its models yet", retry_after_s=RETRY_AFTER_S)
    if model in state.loading:
        return EngineStopped(f"{model} is being loaded", retry_after_s=5.0)
    if all(card.id != model for card in state.models):
        return ModelNotFound("no model of that name is served here", param="model")
    for pool in ("ai", "api"):
        if pool in state.closed:
            return MemoryPressure(state.closed[pool], retry_after_s=PRESSURE_RETRY_AFTER_S)
    return None


def _translated(error: Exception, call: Call) -> EngineError:
    """What a failed call means to its client. Texts of foreign exceptions are not passed on."""
    if call.error is not None:
        return call.error
    if isinstance(error, EngineError):
        return error
    if isinstance(error, BackPressureError):
        return Overloaded(f"too many requests wait for {call.model}", retry_after_s=RETRY_AFTER_S)
    if isinstance(error, RequestCancelledError):
        return EngineStopped("the call was cancelled")
    if isinstance(error, StopAsyncIteration):
        return EngineStopped(f"{call.model} ended the stream too early")
    logger.warning("a call to %s failed: %s", call.model, type(error).__name__)
    if isinstance(error, RayError | DeploymentUnavailableError | grpc.RpcError):
        return EngineStopped(f"the replica of {call.model} that served this request has died")
    return EngineError(f"{call.model} failed")
