"""Serve's handles as the client sees them: a fake at the protocol's boundary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray.serve.exceptions import RequestCancelledError

from deployments.ai.client import CellState


class Answer:
    """What a unary call returns."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Any:
        async def resolve() -> Any:
            value = self._value() if callable(self._value) else self._value
            if isinstance(value, Exception):
                raise value
            return value

        return resolve().__await__()


class ReplicaSide:
    """The replica's half of a stream; `_actor_id` is where Serve keeps it."""

    def __init__(self, actor: bytes) -> None:
        self._actor_id = actor
        self.cancels = 0

    def cancel(self) -> None:
        self.cancels += 1


class Stream:
    """What a streaming call returns: each step is a batch, an exception, or a wait."""

    def __init__(self, steps: list[Any], actor: bytes | None = b"\x01") -> None:
        self._steps = list(steps)
        self._replica_result_future: asyncio.Future[ReplicaSide] = (
            asyncio.get_running_loop().create_future()
        )
        self.side = ReplicaSide(actor or b"")
        if actor is not None:
            self._replica_result_future.set_result(self.side)
        self.cancelled = asyncio.Event()
        self.taken = 0

    def cancel(self) -> None:
        self._replica_result_future.cancel()
        self.cancelled.set()

    async def __anext__(self) -> Any:
        if not self._steps:
            raise StopAsyncIteration
        step = self._steps.pop(0)
        self.taken += 1
        if isinstance(step, Exception):
            raise step
        if isinstance(step, asyncio.Event):
            waits = [asyncio.create_task(event.wait()) for event in (step, self.cancelled)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if self.cancelled.is_set():
                raise RequestCancelledError("id")
            return await self.__anext__()
        return step


class Handle:
    """A deployment's handle: `state` for the cell, `chat` for a model."""

    def __init__(self, state: Callable[[], CellState | Exception], streams: list[Stream]) -> None:
        self._state = state
        self._streams = streams
        self.sessions: list[str] = []
        self.requests: list[Any] = []

    def options(self, *, stream: bool, session_id: str, **serialization: str) -> Handle:
        assert stream
        self.sessions.append(session_id)
        return self

    @property
    def state(self) -> Any:
        return _Remote(lambda: Answer(self._state))

    @property
    def chat(self) -> Any:
        return _Remote(self._chat)

    def _chat(self, request: Any) -> Stream:
        self.requests.append(request)
        return self._streams.pop(0)


class _Remote:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call
