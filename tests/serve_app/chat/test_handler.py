from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from pydantic import BaseModel

from deployments.ai.client import ModelCard
from models.errors import ContextLengthExceeded, ModelNotFound
from models.generation import Delta, Done, Event, Failure, Finish, Priority, Usage
from serve_app.chat import handler as handler_module
from serve_app.shapes import ErrorBody
from tests.serve_app.fake_language import (
    ASK,
    HELLO,
    MODEL,
    SIGNED_IN,
    FakeLanguage,
    RawConnection,
    app_of,
    http_client,
    openai_client,
)

CHAT = "/v1/chat/completions"
ASK_STREAM = {**ASK, "stream": True}
FULL = Failure(429, "rate_limit_error", "queue_full", "full", None, 2.0)
LATE = Failure(504, "timeout_error", "deadline_exceeded", "late")


async def for_ever() -> None:
    await asyncio.Event().wait()


def error_of(events: list[Any]) -> ErrorBody:
    return ErrorBody.model_validate(events[-1])


def events_of(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


async def test_openais_client_reads_a_whole_answer() -> None:
    client = openai_client(app_of(FakeLanguage()))
    answer = await client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Pressure is 120/80"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert answer.system_fingerprint == "fp_0123456789ab"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (7, 12)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 4


async def test_openais_client_reads_a_stream() -> None:
    client = openai_client(app_of(FakeLanguage()))
    stream = await client.chat.completions.create(
        **ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in texts) == "Pressure is 120/80"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1


async def test_an_earlier_answer_can_be_sent_back_as_openais_client_gives_it() -> None:
    service = FakeLanguage()
    client = openai_client(app_of(service))
    first = await client.chat.completions.create(**ASK)
    turns: list[Any] = [*ASK["messages"], first.choices[0].message]
    await client.chat.completions.create(model=MODEL, messages=turns)
    assert service.requests[1].messages[1] == {
        "role": "assistant",
        "content": "Pressure is 120/80",
    }
    assert service.sessions[0] == service.sessions[1]


class Triage(BaseModel):
    """What a caller wants to read."""

    urgent: bool


async def test_openais_client_parses_structured_answers_by_its_own_schema() -> None:
    service = FakeLanguage(
        [Delta(0, '{"urgent":true}', 5), Finish(0, "stop"), Done(Usage(1, 0, 5))]
    )
    client = openai_client(app_of(service))
    answer = await client.chat.completions.parse(**ASK, response_format=Triage)
    assert answer.choices[0].message.parsed == Triage(urgent=True)
    wanted = service.requests[0].response_format
    assert wanted is not None
    assert wanted["type"] == "json_schema"
    assert set(wanted["schema"]["properties"]) == {"urgent"}


async def test_openais_stream_helper_accumulates_the_answer() -> None:
    client = openai_client(app_of(FakeLanguage()))
    async with client.chat.completions.stream(**ASK) as stream:
        kinds = {event.type async for event in stream}
        answer = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert answer.choices[0].message.content == "Pressure is 120/80"


async def test_a_batch_of_events_is_one_write_and_the_first_is_not_held_back() -> None:
    connection = RawConnection().give(json.dumps(ASK_STREAM).encode())
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    running = asyncio.create_task(connection.run(app_of(FakeLanguage(HELLO[0], wait, *HELLO[1:]))))
    await asyncio.wait_for(connection.first_body.wait(), 5)
    assert b"Pressure" in connection.body
    release.set()
    await asyncio.wait_for(running, 5)
    bodies = [m for m in connection.sent if m["type"] == "http.response.body"]
    assert len(bodies) == len(HELLO)
    assert [m["more_body"] for m in bodies] == [True, True, False]
    assert connection.body.endswith(b"data: [DONE]\n\n")


async def test_streams_are_marked_so_that_nothing_on_the_way_keeps_them() -> None:
    async with http_client(app_of(FakeLanguage())) as client:
        answer = await client.post(CHAT, json=ASK_STREAM)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("step", "status", "code"),
    [
        ([FULL], 429, "queue_full"),
        ([LATE], 504, "deadline_exceeded"),
        (ModelNotFound("none"), 404, "model_not_found"),
        (ContextLengthExceeded("long", param="messages"), 400, "context_length_exceeded"),
        (TimeoutError(), 504, "deadline_exceeded"),
        (RuntimeError("Maria"), 500, "internal_error"),
    ],
)
async def test_a_failure_before_the_first_token_is_an_http_status(
    stream: bool, step: Any, status: int, code: str
) -> None:
    async with http_client(app_of(FakeLanguage(step))) as client:
        answer = await client.post(CHAT, json={**ASK, "stream": stream})
    assert answer.status_code == status
    assert ErrorBody.model_validate(answer.json()).error.code == code
    assert "Maria" not in answer.text
    assert ("retry-after" in answer.headers) == (status == 429)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        ([FULL], "queue_full"),
        (RuntimeError("Maria"), "internal_error"),
        (TimeoutError(), "deadline_exceeded"),
        ([], "engine_unavailable"),
    ],
)
async def test_a_failure_in_mid_stream_is_an_error_event_and_the_end_without_done(
    step: Any, code: str
) -> None:
    async with http_client(app_of(FakeLanguage(HELLO[0], step))) as client:
        answer = await client.post(CHAT, json=ASK_STREAM)
    events = events_of(answer.text)
    assert answer.status_code == 200
    assert error_of(events).error.code == code
    assert "[DONE]" not in events
    assert "Maria" not in answer.text


async def test_openais_client_raises_a_failure_in_mid_stream() -> None:
    client = openai_client(app_of(FakeLanguage(HELLO[0], [LATE])))
    with pytest.raises(openai.APIError) as raised:
        async for _ in await client.chat.completions.create(**ASK, stream=True):
            pass
    assert raised.value.code == "deadline_exceeded"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_beyond_its_time_is_504_and_the_engine_is_told(stream: bool) -> None:
    service = FakeLanguage(for_ever)
    async with http_client(app_of(service, request_timeout_s=0.05)) as client:
        answer = await client.post(CHAT, json={**ASK, "stream": stream})
    assert answer.status_code == 504
    assert service.ended.is_set()
    assert not service.completed
    assert 0 < service.requests[0].timeout_s <= 0.05


async def test_a_stream_beyond_its_time_ends_with_an_error_event() -> None:
    service = FakeLanguage(HELLO[0], for_ever)
    async with http_client(app_of(service, request_timeout_s=0.1)) as client:
        answer = await client.post(CHAT, json=ASK_STREAM)
    assert error_of(events_of(answer.text)).error.code == "deadline_exceeded"
    assert service.ended.is_set()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_takes_nothing_does_not_keep_its_request_for_ever(
    monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr(handler_module, "CLEANUP_S", 0.05)
    monkeypatch.setattr(handler_module, "WRITE_TIMEOUT_S", 0.05)
    service = FakeLanguage(*[HELLO[0]] * 100, HELLO[-1])
    connection = RawConnection().give(json.dumps({**ASK, "stream": stream}).encode())

    async def stuck(message: Any) -> None:
        await for_ever()

    connection.send = stuck  # type: ignore[method-assign]
    running = connection.run(app_of(service, request_timeout_s=0.05))
    await asyncio.wait_for(running, 5)
    assert service.ended.is_set()


@pytest.mark.parametrize("way", ["message", "cancel", "both"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_ends_the_generation(stream: bool, way: str) -> None:
    service = FakeLanguage(HELLO[0], for_ever)
    connection = RawConnection().give(json.dumps({**ASK, "stream": stream}).encode())
    running = asyncio.create_task(connection.run(app_of(service)))
    await asyncio.wait_for(service.arrivals.get(), 5)
    await asyncio.sleep(0.01)
    if way in ("message", "both"):
        connection.leave()
    if way in ("cancel", "both"):
        running.cancel()
    await asyncio.wait_for(service.ended.wait(), 1)
    await asyncio.wait_for(asyncio.wait({running}), 1)
    assert not service.completed
    assert b"[DONE]" not in connection.body
    if not stream:
        assert connection.sent == []


@pytest.fixture
async def address() -> AsyncIterator[tuple[str, FakeLanguage]]:
    service = FakeLanguage(HELLO[0], for_ever)
    config = uvicorn.Config(
        app_of(service), host="127.0.0.1", port=0, ws="none", log_level="critical"
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", service
    server.should_exit = True
    await asyncio.wait_for(serving, 10)


async def test_closing_a_real_connection_ends_the_generation(
    address: tuple[str, FakeLanguage],
) -> None:
    url, service = address
    async with httpx.AsyncClient(base_url=url, headers=SIGNED_IN) as client:
        async with client.stream("POST", CHAT, json=ASK_STREAM) as answer:
            async for part in answer.aiter_text():
                assert "Pressure" in part
                break
        began = time.monotonic()
        await asyncio.wait_for(service.ended.wait(), 2)
        assert time.monotonic() - began < 1
    assert not service.completed


@pytest.mark.parametrize("pool", ["ai", "api"])
async def test_a_pool_that_the_memory_guard_has_closed_admits_nothing(pool: str) -> None:
    service = FakeLanguage(closed={pool: "over 90 %"})
    async with http_client(app_of(service)) as client:
        answer = await client.post(CHAT, json=ASK)
    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "memory_pressure"
    assert int(answer.headers["retry-after"]) >= 1
    assert service.requests == []


async def test_chats_beyond_the_replicas_limit_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handler_module, "MAX_CHATS", 2)
    release = asyncio.Event()

    async def wait() -> None:
        await release.wait()

    service = FakeLanguage(wait, *HELLO)
    async with http_client(app_of(service)) as client:
        running = [asyncio.create_task(client.post(CHAT, json=ASK)) for _ in range(2)]
        for _ in running:
            await asyncio.wait_for(service.arrivals.get(), 5)
        refused = await client.post(CHAT, json=ASK)
        release.set()
        served = [answer.status_code for answer in await asyncio.gather(*running)]
        again = await client.post(CHAT, json=ASK)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert served == [200, 200]
    assert again.status_code == 200


async def test_an_unknown_model_is_404_and_one_still_loading_503() -> None:
    service = FakeLanguage()
    service.loading = ("big",)
    async with http_client(app_of(service)) as client:
        unknown = await client.post(CHAT, json={**ASK, "model": "Maria"})
        loading = await client.post(CHAT, json={**ASK, "model": "big"})
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")
    assert unknown.json()["error"]["code"] == "model_not_found"
    assert "Maria" not in unknown.text
    assert (loading.status_code, "retry-after" in loading.headers) == (503, True)


async def test_the_model_asked_for_is_the_one_that_answers() -> None:
    service = FakeLanguage()
    service.cards = (*service.cards, ModelCard("other", 1, 8192, "f" * 64))
    answer = await openai_client(app_of(service)).chat.completions.create(
        model="other", messages=ASK["messages"]
    )
    assert (answer.model, answer.system_fingerprint) == ("other", "fp_ffffffffffff")


async def test_the_priority_header_reaches_the_engine() -> None:
    service = FakeLanguage()
    client = openai_client(app_of(service))
    await client.chat.completions.create(**ASK, extra_headers={"x-priority": "emergency"})
    assert service.requests[0].priority is Priority.EMERGENCY


async def test_a_body_over_the_limit_is_413() -> None:
    async with http_client(app_of(FakeLanguage(), max_body_mb=0.001)) as client:
        answer = await client.post(CHAT, json={**ASK, "user": "u" * 2000})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


async def test_every_choice_of_several_is_streamed_and_finished() -> None:
    script: tuple[list[Event], ...] = (
        [Delta(0, "a", 1), Delta(1, "b", 1)],
        [Finish(1, "stop"), Delta(0, "c", 1)],
        [Finish(0, "length"), Done(Usage(1, 0, 3))],
    )
    client = openai_client(app_of(FakeLanguage(*script)))
    text = {0: "", 1: ""}
    reasons: dict[int, str] = {}
    async for chunk in await client.chat.completions.create(**ASK, stream=True, n=2):
        choice = chunk.choices[0]
        text[choice.index] += choice.delta.content or ""
        if choice.finish_reason:
            reasons[choice.index] = choice.finish_reason
    assert text == {0: "ac", 1: "b"}
    assert reasons == {0: "length", 1: "stop"}
