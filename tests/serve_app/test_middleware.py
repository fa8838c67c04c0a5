from __future__ import annotations

import logging
from typing import Any

import orjson
import pytest

from models.generation import Failure
from serve_app.middleware import MAX_HEADERS
from tests.serve_app.fake_language import (
    ASK,
    HELLO,
    MODEL,
    FakeLanguage,
    RawConnection,
    app_of,
    http_client,
)

CHAT = "/v1/chat/completions"
SECRET = "Maria"


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        orjson.loads(record.getMessage())
        for record in caplog.records
        if record.name == "medrec.access"
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_is_one_line_of_ids_times_and_counts(
    caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    with caplog.at_level(logging.INFO, "medrec"):
        async with http_client(app_of(FakeLanguage())) as client:
            await client.post(
                CHAT, json={**ASK, "stream": stream}, headers={"x-request-id": "ward-7"}
            )
    (line,) = access_lines(caplog)
    assert line["request_id"] == "ward-7"
    assert (line["method"], line["route"], line["status"]) == ("POST", CHAT, 200)
    assert (line["model"], line["stream"]) == (MODEL, stream)
    counts = (line["prompt_tokens"], line["cached_tokens"], line["completion_tokens"])
    assert counts == (7, 4, 5)
    assert 0 <= line["first_token_s"] <= line["duration_s"]


async def test_no_text_of_a_request_or_answer_reaches_any_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ask = {
        **ASK,
        "messages": [{"role": "user", "content": SECRET}],
        "user": SECRET,
        "metadata": {"patient": f"Patient/{SECRET}", SECRET: SECRET},
    }
    with caplog.at_level(logging.DEBUG):
        for script in ((), (RuntimeError(SECRET),), (HELLO[0], RuntimeError(SECRET))):
            async with http_client(app_of(FakeLanguage(*script))) as client:
                await client.post(CHAT, json={**ask, "stream": True})
                await client.post(CHAT, json={**ask, SECRET: SECRET})
                await client.post(CHAT, json={**ask, "model": SECRET})
                await client.get(f"/v1/models/{SECRET}")
                await client.get(f"/{SECRET}")
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    assert ours
    for record in ours:
        assert SECRET not in record.getMessage()
        assert record.exc_info is None
        assert "Pressure" not in record.getMessage()


async def test_routes_are_written_as_declared_and_unknown_models_not_at_all(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "medrec"):
        async with http_client(app_of(FakeLanguage())) as client:
            await client.get("/v1/models/some/thing")
            await client.get("/elsewhere")
            await client.request("SECRET", "/v1/models")
            await client.post(CHAT, json={**ASK, "model": "some-thing"})
    models, unmatched, method, chat = access_lines(caplog)
    assert (models["route"], models["code"]) == ("/v1/models/{model:path}", "model_not_found")
    assert (unmatched["route"], unmatched["status"]) == ("unmatched", 404)
    assert (method["method"], method["status"]) == ("other", 405)
    assert "model" not in chat


@pytest.mark.parametrize(
    ("script", "code"),
    [((RuntimeError("x"),), "internal_error"), ((HELLO[0], RuntimeError("x")), "internal_error")],
)
async def test_the_code_of_an_error_is_on_the_line_streams_included(
    caplog: pytest.LogCaptureFixture, script: Any, code: str
) -> None:
    with caplog.at_level(logging.INFO, "medrec"):
        async with http_client(app_of(FakeLanguage(*script))) as client:
            await client.post(CHAT, json={**ASK, "stream": True})
    assert [line["code"] for line in access_lines(caplog)] == [code]


async def test_a_failure_event_is_on_the_line(caplog: pytest.LogCaptureFixture) -> None:
    failure = Failure(503, "server_error", "engine_unavailable", "gone")
    with caplog.at_level(logging.INFO, "medrec"):
        async with http_client(app_of(FakeLanguage(HELLO[0], [failure]))) as client:
            await client.post(CHAT, json={**ASK, "stream": True})
    (line,) = access_lines(caplog)
    assert (line["status"], line["code"]) == (200, "engine_unavailable")


async def test_a_client_that_left_is_written_as_499(caplog: pytest.LogCaptureFixture) -> None:
    connection = RawConnection().give(b"{", more=True)
    connection.leave()
    with caplog.at_level(logging.INFO, "medrec"):
        await connection.run(app_of(FakeLanguage()))
    (line,) = access_lines(caplog)
    assert line["status"] == 499
    assert connection.sent == []


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x-%d" % i, b"1") for i in range(MAX_HEADERS + 1)],
        [(b"x-long", b"a" * 40_000)],
    ],
)
async def test_too_many_or_too_long_headers_are_431(headers: list[tuple[bytes, bytes]]) -> None:
    connection = RawConnection("/health/live", "GET", headers)
    await connection.run(app_of(FakeLanguage()))
    assert connection.status == 431
    assert orjson.loads(connection.body)["error"]["code"] == "headers_too_large"
