"""The order of things: the question on record before the engine, the outcome before the end."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

from deployments.data.errors import StoreUnavailable
from deployments.data.interactions.interaction import Asked, canonical, output_hash
from deployments.data.interactions.switches import SwitchedOff
from deployments.data.principal import Principal
from models.generation import Delta, Done, Failure, Finish, Usage
from tests.serve_app.fake_language import (
    ASK,
    HELLO,
    MODEL,
    WEIGHTS,
    FakeLanguage,
    RawConnection,
    app_of,
    http_client,
)
from tests.serve_app.fake_security import PHYSICIAN, FakeRecord

CHAT = "/v1/chat/completions"
TEXT = "Pressure is 120/80"
ABOUT = {**ASK, "metadata": {"patient": "Patient/p-7", "ward": "3"}}
AWAY = StoreUnavailable("away")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


async def post(
    service: FakeLanguage,
    record: FakeRecord,
    *,
    stream: bool,
    principal: Principal = PHYSICIAN,
    ask: dict[str, Any] = ASK,
    **headers: str,
) -> Any:
    async with http_client(app_of(service, record, principal)) as client:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return await client.post(CHAT, json={**ask, "stream": stream}, headers=sent)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_question_is_on_record_before_the_engine_is_asked(stream: bool) -> None:
    service, record = FakeLanguage(), FakeRecord()
    asked_before: list[int] = []
    record.hooks["begin"] = lambda: asked_before.append(len(service.requests))
    answer = await post(service, record, stream=stream)
    assert answer.status_code == 200
    assert asked_before == [0]
    assert record.steps == ["permit", "begin", "end"]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_outcome_is_on_record_before_the_answer_ends(stream: bool) -> None:
    record = FakeRecord()
    connection = RawConnection().give(json.dumps({**ASK, "stream": stream}).encode())
    sent: list[bytes] = []
    record.hooks["end"] = lambda: sent.append(connection.body)
    await connection.run(app_of(FakeLanguage(), record))
    (before,) = sent
    assert b"[DONE]" not in before
    assert before.startswith(b"data:") if stream else before == b""
    assert connection.body.endswith(b"data: [DONE]\n\n" if stream else b"}")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_question_is_recorded_by_ids_and_hashes_and_its_answer_too(stream: bool) -> None:
    record = FakeRecord()
    ask = {**ASK, "messages": [{"role": "developer", "content": "s"}, *ASK["messages"]]}
    answer = await post(FakeLanguage(), record, stream=stream, ask=ask, x_priority="emergency")
    (asked,), (answered,) = record.asked, record.answered
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}]
    assert asked == Asked(
        id=answer.headers["x-interaction-id"],
        model=MODEL,
        weights_sha256=WEIGHTS,
        prompt_version="none",
        input_sha256=hashlib.sha256(canonical(messages)).hexdigest(),
        system_sha256=sha256("s"),
        priority="emergency",
        streamed=stream,
        at=asked.at,
    )
    assert answered.outcome == "success"
    assert answered.output_sha256 == sha256(TEXT)
    assert answered.finish_reasons == ("stop",)
    counts = (answered.prompt_tokens, answered.cached_tokens, answered.completion_tokens)
    assert counts == (7, 4, 5)
    assert answered.text == asked.text == b""


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_says_by_what_it_was_made(stream: bool) -> None:
    answer = await post(FakeLanguage(), FakeRecord(), stream=stream)
    assert answer.headers["x-model"] == MODEL
    assert answer.headers["x-weights-sha256"] == WEIGHTS
    assert answer.headers["x-prompt-version"] == "none"
    first = answer.text.split("\n\n")[0].removeprefix("data: ")
    assert answer.headers["x-interaction-id"] == json.loads(first)["id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_only_about_a_patient_the_texts_are_handed_on_to_be_kept(stream: bool) -> None:
    record = FakeRecord()
    await post(FakeLanguage(), record, stream=stream, ask=ABOUT)
    assert record.asked[0].patient == "p-7"
    assert json.loads(record.asked[0].text) == ASK["messages"]
    assert json.loads(record.answered[0].text) == [{"content": TEXT}]
    assert TEXT not in repr(record.answered[0])
    assert "hello" not in repr(record.asked[0])


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_put_on_record_is_not_asked_of_the_engine(stream: bool) -> None:
    service, record = FakeLanguage(), FakeRecord(refusals={"begin": AWAY})
    answer = await post(service, record, stream=stream)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "store_unavailable"
    assert service.requests == []
    assert record.steps == ["permit", "begin"]


async def test_a_stream_whose_outcome_cannot_be_recorded_ends_with_an_error_and_no_done() -> None:
    answer = await post(FakeLanguage(), FakeRecord(refusals={"end": AWAY}), stream=True)
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    last = json.loads(answer.text.split("\n\n")[-2].removeprefix("data: "))
    assert last["error"]["code"] == "store_unavailable"


async def test_a_whole_answer_whose_outcome_cannot_be_recorded_does_not_leave() -> None:
    answer = await post(FakeLanguage(), FakeRecord(refusals={"end": AWAY}), stream=False)
    assert answer.status_code == 503
    assert "Pressure" not in answer.text


@pytest.mark.parametrize(
    ("script", "outcome", "code", "text"),
    [
        ((HELLO[0], RuntimeError("x")), "failed", "internal_error", "Pressure "),
        (
            (HELLO[0], [Failure(503, "e", "engine_unavailable", "")]),
            "failed",
            "engine_unavailable",
            "Pressure ",
        ),
        (
            (HELLO[0], [Failure(504, "e", "deadline_exceeded", "")]),
            "interrupted",
            "deadline_exceeded",
            "Pressure ",
        ),
        ((TimeoutError(),), "interrupted", "deadline_exceeded", ""),
        (([Failure(429, "e", "queue_full", "")],), "failed", "queue_full", ""),
        ((HELLO[0], []), "failed", "engine_unavailable", "Pressure "),
    ],
)
async def test_an_answer_that_breaks_is_closed_with_the_hash_of_what_was_sent(
    script: Any, outcome: str, code: str, text: str
) -> None:
    record = FakeRecord()
    await post(FakeLanguage(*script), record, stream=True)
    (answered,) = record.answered
    assert (answered.outcome, answered.code) == (outcome, code)
    assert answered.output_sha256 == sha256(text)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["message", "cancel"])
async def test_a_client_that_leaves_is_closed_as_interrupted(stream: bool, way: str) -> None:
    async def for_ever() -> None:
        await asyncio.Event().wait()

    service, record = FakeLanguage(HELLO[0], for_ever), FakeRecord()
    connection = RawConnection().give(json.dumps({**ASK, "stream": stream}).encode())
    running = asyncio.create_task(connection.run(app_of(service, record)))
    await asyncio.wait_for(service.arrivals.get(), 5)
    await asyncio.sleep(0.01)
    if way == "message":
        connection.leave()
    else:
        running.cancel()
    await asyncio.wait({running}, timeout=5)
    (answered,) = record.answered
    assert (answered.outcome, answered.code) == ("interrupted", "client_gone")
    assert answered.output_sha256 == sha256("Pressure ")


async def test_several_choices_are_hashed_together_in_their_order() -> None:
    script = [Delta(1, "b", 1), Delta(0, "a", 1)], [Finish(1, "stop"), Finish(0, "length")]
    record = FakeRecord()
    service = FakeLanguage(*script, [Done(Usage(1, 0, 2))])
    await post(service, record, stream=True, ask={**ASK, "n": 2})
    digests = [hashlib.sha256(text).digest() for text in (b"a", b"b")]
    assert record.answered[0].output_sha256 == output_hash(digests)
    assert record.answered[0].finish_reasons == ("length", "stop")


async def test_ai_switched_off_ends_what_runs() -> None:
    record = FakeRecord()

    async def switch_off() -> None:
        record.refusals["switch"] = SwitchedOff("off")

    service = FakeLanguage(HELLO[0], switch_off, *HELLO[1:])
    answer = await post(service, record, stream=True)
    assert "120/80" not in answer.text
    assert "ai_switched_off" in answer.text
    assert (record.answered[0].outcome, record.answered[0].code) == (
        "interrupted",
        "ai_switched_off",
    )


async def test_the_engine_is_fair_among_callers_not_among_names() -> None:
    service = FakeLanguage()
    machine = replace(PHYSICIAN, kind="key", role="service", id="key-1")
    await post(service, FakeRecord(), stream=False, ask={**ASK, "user": "x"})
    await post(service, FakeRecord(), stream=False, ask={**ASK, "user": "x"}, principal=machine)
    assert [request.user for request in service.requests] == [PHYSICIAN.id, "key-1/x"]
    assert service.sessions[0] != service.sessions[1]
