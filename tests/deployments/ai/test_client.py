"""The client of the language models: refusals, failures of replicas, deadlines and cancels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from deployments.ai import client
from deployments.ai.client import CellState, ModelCard, RayLanguageService, verdict
from deployments.ai.streams import Call
from models.errors import InvalidLogits, ModelNotFound
from models.generation import ChatRequest, Delta, Done, Event, Failure, Finish, Usage
from tests.deployments.ai.fake_serve import Handle, Stream

CARD = ModelCard("m", 1, 1024, "0" * 64)
OPEN = CellState(models=(CARD,), closed={}, running={"m": 1})
REQUEST = ChatRequest(id="r", messages=[])
WORD = [Delta(0, "a ", 1)]
END = [Finish(0, "stop"), Done(Usage(1, 0, 1))]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL_PERIOD_S", 0.01)
    monkeypatch.setattr(client, "WATCH_PERIOD_S", 0.01)
    monkeypatch.setattr(client, "SILENCE_S", 0.05)


class World:
    """The handles of one cell, and the state that it tells."""

    def __init__(self) -> None:
        self.told: CellState | Exception = OPEN
        self.streams: list[Stream] = []
        self.handle = Handle(lambda: self.told, self.streams)

    def stream(self, *steps: Any, actor: bytes | None = b"\x01") -> Stream:
        self.streams.append(Stream(list(steps), actor))
        return self.streams[-1]


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[RayLanguageService]:
    service = RayLanguageService(lambda name: world.handle)
    service.start()
    async with asyncio.timeout(5):
        while service.state_age_s() == float("inf"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    try:
        yield service
    finally:
        await service.close()


async def collect(stream: AsyncIterator[Sequence[Event]]) -> list[Event]:
    async with asyncio.timeout(5):
        return [event async for batch in stream for event in batch]


async def chat(service: RayLanguageService, request: ChatRequest = REQUEST) -> list[Event]:
    return await collect(service.chat("m", request, "session"))


def only_failure(events: list[Event]) -> Failure:
    assert isinstance(events[-1], Failure)
    assert not any(isinstance(event, Failure | Done) for event in events[:-1])
    return events[-1]


async def test_events_pass_as_they_come_with_the_session() -> None:
    world = World()
    world.stream(WORD, WORD, END)
    async with serving(world) as service:
        assert await chat(service) == [*WORD, *WORD, *END]
    assert world.handle.sessions == ["session"]
    assert world.handle.requests == [REQUEST]


async def test_an_unknown_model_is_refused_before_any_call() -> None:
    world = World()
    async with serving(world) as service:
        with pytest.raises(ModelNotFound):
            service.chat("other", REQUEST, "session")
    assert world.handle.requests == []


async def test_before_the_cell_has_spoken_a_chat_is_unavailable_and_not_unknown() -> None:
    service = RayLanguageService(lambda name: World().handle)
    failed = only_failure(await chat(service))
    assert (failed.status, failed.code) == (503, "engine_unavailable")
    assert failed.message == "the cell has not told its models yet"


async def test_a_model_that_is_loading_is_unavailable_and_not_unknown() -> None:
    world = World()
    world.told = CellState(models=(), closed={}, loading=("m",))
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.message) == (503, "m is being loaded")


@pytest.mark.parametrize("pool", ["ai", "api"])
async def test_a_closed_pool_refuses_with_the_guards_reason(pool: str) -> None:
    world = World()
    world.told = replace(OPEN, closed={pool: "pool uses too much"})
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.code) == (429, "memory_pressure")
    assert (failed.message, failed.retry_after_s) == ("pool uses too much", 5.0)
    assert world.handle.requests == []


async def test_a_closed_data_node_does_not_stop_chats() -> None:
    world = World()
    world.told = replace(OPEN, closed={"data": "full"})
    world.stream(END)
    async with serving(world) as service:
        assert await chat(service) == END


async def test_a_replica_that_dies_in_mid_stream_ends_the_stream_with_503() -> None:
    world = World()
    world.stream(WORD, ActorUnavailableError("gone", b"\x00" * 16))
    async with serving(world) as service:
        events = await chat(service)
    assert events[:-1] == WORD
    failed = only_failure(events)
    assert (failed.status, failed.code) == (503, "engine_unavailable")
    assert failed.message == "the replica of m that served this request has died"


async def test_a_silent_stream_of_a_replica_whose_process_is_gone_ends_with_503() -> None:
    world = World()
    stream = world.stream(WORD, asyncio.Event(), actor=b"\xab\xcd")
    async with serving(world) as service:
        world.told = replace(OPEN, gone=frozenset({"abcd"}))
        failed = only_failure(await chat(service))
    assert failed.status == 503
    assert stream.side.cancels > 0


async def test_a_silent_stream_of_a_living_replica_goes_on() -> None:
    world = World()
    speak = asyncio.Event()
    world.stream(WORD, speak, END)
    async with serving(world) as service:
        asyncio.get_running_loop().call_later(0.2, speak.set)
        assert await chat(service) == [*WORD, *END]


async def test_a_stream_past_its_deadline_ends_with_504(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "DEADLINE_MARGIN_S", 0.05)
    world = World()
    stream = world.stream(WORD, asyncio.Event())
    async with serving(world) as service:
        failed = only_failure(await chat(service, replace(REQUEST, timeout_s=0.05)))
    assert (failed.status, failed.code) == (504, "deadline_exceeded")
    assert stream.side.cancels > 0


async def test_a_full_queue_of_serve_is_429_with_a_time_to_retry() -> None:
    world = World()
    world.stream(BackPressureError(num_queued_requests=9, max_queued_requests=8))
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.code, failed.retry_after_s) == (429, "rate_limit_exceeded", 1.0)


async def test_an_error_of_the_engine_keeps_its_words() -> None:
    world = World()
    world.stream(InvalidLogits("NaN at layer 3"))
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.code, failed.message) == (500, "invalid_logits", "NaN at layer 3")


async def test_a_foreign_exceptions_text_is_not_passed_on() -> None:
    world = World()
    world.stream(ValueError("the patient's words"))
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.message) == (500, "m failed")


async def test_a_stream_that_ends_without_an_end_is_a_failure() -> None:
    world = World()
    world.stream(WORD)
    async with serving(world) as service:
        failed = only_failure(await chat(service))
    assert (failed.status, failed.message) == (503, "m ended the stream too early")


async def test_closing_the_iterator_cancels_the_replicas_side() -> None:
    world = World()
    stream = world.stream(WORD, WORD, END)
    async with serving(world) as service:
        events: Any = service.chat("m", REQUEST, "session")
        assert await anext(events) == WORD
        await events.aclose()
        assert stream.cancelled.is_set()
        assert stream.side.cancels == 1
        assert stream.taken == 1


async def test_a_cancelled_task_cancels_the_replicas_side() -> None:
    world = World()
    stream = world.stream(WORD, asyncio.Event())
    async with serving(world) as service:
        task = asyncio.create_task(chat(service))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stream.side.cancels == 1


async def test_the_last_state_is_kept_while_the_cell_is_silent() -> None:
    world = World()
    async with serving(world) as service:
        world.told = ConnectionError("gone")
        await asyncio.sleep(0.1)
        assert service.state() == OPEN
        assert service.state_age_s() >= 0.05


async def test_closing_the_service_ends_its_calls() -> None:
    world = World()
    world.stream(WORD, asyncio.Event())
    async with serving(world) as service:
        task = asyncio.create_task(chat(service))
        await asyncio.sleep(0.02)
        await service.close()
        failed = only_failure(await task)
    assert (failed.status, failed.message) == (503, "this API process is stopping")


async def test_a_call_that_no_replica_takes_ends_busy_or_unavailable() -> None:
    call = Call("m", Stream([], actor=None), deadline_s=1e9, started_s=100.0)
    assert verdict(call, OPEN, 130.0) is None
    busy = verdict(call, OPEN, 130.1)
    assert busy is not None
    assert (busy.status, busy.message) == (429, "no replica of m is free")
    dead = verdict(call, replace(OPEN, running={"m": 0}), 130.1)
    assert dead is not None
    assert (dead.status, dead.message) == (503, "m has no replica running")
