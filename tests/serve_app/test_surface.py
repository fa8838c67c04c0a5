from __future__ import annotations

from typing import Any

import pytest

from models.generation import Failure
from serve_app.shapes import ErrorBody
from tests.serve_app.fake_language import (
    ASK,
    MODEL,
    FakeLanguage,
    RawConnection,
    app_of,
    http_client,
    openai_client,
)
from tests.serve_app.fake_security import FakeRecord

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}

# Method, path, what httpx sends, the status told.
ERRORS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/", {}, 404),
    ("GET", "/v1", {}, 404),
    ("POST", "/v1/embeddings", {"json": ASK}, 404),
    ("POST", CHAT, {"json": ASK, "headers": {"authorization": "Bearer wrong"}}, 401),
    ("GET", "/v1/models", {"headers": {"authorization": "Basic eA=="}}, 401),
    ("POST", "/v1/chat/completions/", {"json": ASK}, 404),
    ("GET", "/v1/models/nothing", {}, 404),
    ("GET", "/docs", {}, 404),
    ("GET", "/%00%ff", {}, 404),
    ("GET", CHAT, {}, 405),
    ("DELETE", "/v1/models", {}, 405),
    ("OPTIONS", CHAT, {}, 405),
    ("POST", "/openapi.json", {}, 405),
    ("POST", "/metrics", {}, 405),
    ("POST", CHAT, {"content": b"{", "headers": JSON}, 400),
    ("POST", CHAT, {"content": b"", "headers": JSON}, 400),
    ("POST", CHAT, {"content": b'{"a": NaN}', "headers": JSON}, 400),
    ("POST", CHAT, {"content": b'{"a": "\xff"}', "headers": JSON}, 400),
    ("POST", CHAT, {"content": b'{"a": 1, "a": 1}', "headers": JSON}, 400),
    ("POST", CHAT, {"content": b"[" * 10_000, "headers": JSON}, 400),
    ("POST", CHAT, {"content": b'{"seed": ' + b"9" * 5000 + b"}", "headers": JSON}, 400),
    ("POST", CHAT, {"json": []}, 400),
    ("POST", CHAT, {"json": {}}, 400),
    ("POST", CHAT, {"json": {**ASK, "tools": []}}, 400),
    ("POST", CHAT, {"json": ASK, "headers": {"x-priority": "vip"}}, 400),
    ("POST", CHAT, {"json": {**ASK, "model": "nothing"}}, 404),
    ("POST", CHAT, {"json": {**ASK, "user": "u" * 30_000}}, 413),
    ("POST", CHAT, {"data": {"model": MODEL}}, 415),
    ("POST", CHAT, {"json": ASK, "headers": {"content-encoding": "gzip"}}, 415),
    ("GET", "/metrics", {}, 503),
    ("GET", "/health/live", {"headers": {"x-a": "a" * 40_000}}, 431),
]


@pytest.mark.parametrize(("method", "path", "sent", "status"), ERRORS)
async def test_every_error_has_openais_shape_on_every_path(
    method: str, path: str, sent: dict[str, Any], status: int
) -> None:
    async with http_client(app_of(FakeLanguage(), max_body_mb=0.02)) as client:
        answer = await client.request(method, path, **sent)
    assert answer.status_code == status
    ErrorBody.model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/nothing", "/fhir/Nothing"])
async def test_paths_of_the_other_surfaces_fail_in_their_own_shapes(path: str) -> None:
    async with http_client(app_of(FakeLanguage())) as client:
        answer = await client.get(path)
    kinds = {"/v1": "application/problem+json", "/fhir": "application/fhir+json"}
    assert answer.status_code == 404
    assert answer.headers["content-type"] == kinds[path[: path.index("/", 1)]]


@pytest.mark.parametrize("path", ["/", CHAT, "/v1/models", "/v1/models/nothing", "/elsewhere"])
async def test_nothing_is_told_to_who_has_no_credentials(path: str) -> None:
    record = FakeRecord()
    connection = RawConnection(path, "GET", (), signed_in=False)
    await connection.run(app_of(FakeLanguage(), record))
    assert connection.status == 401
    assert [(entry.action, entry.outcome) for entry in record.entries] == [("access", "denied")]


async def test_head_is_refused_without_a_body() -> None:
    async with http_client(app_of(FakeLanguage())) as client:
        answer = await client.head("/health/live")
    assert (answer.status_code, answer.content) == (405, b"")
    assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 404, 429, 500, 503, 504])
async def test_every_status_of_the_engine_has_openais_shape(status: int, stream: bool) -> None:
    service = FakeLanguage([Failure(status, "some_error", "some_code", "why", "where")])
    async with http_client(app_of(service)) as client:
        answer = await client.post(CHAT, json={**ASK, "stream": stream})
    assert answer.status_code == status
    error = ErrorBody.model_validate_json(answer.content).error
    assert (error.type, error.code, error.param) == ("some_error", "some_code", "where")
    assert ("retry-after" in answer.headers) == (status in (429, 503))


async def test_a_path_of_any_bytes_is_answered() -> None:
    for path in ("/\udcff", "//", "/v1/models/../..", "/" + "a" * 5000):
        connection = RawConnection("/x", "GET", ())
        connection.scope["path"] = path
        await connection.run(app_of(FakeLanguage()))
        assert connection.status == 404


async def test_models_are_listed_as_openais_client_expects() -> None:
    client = openai_client(app_of(FakeLanguage()))
    models = [model async for model in client.models.list()]
    assert [(model.id, model.object) for model in models] == [(MODEL, "model")]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    assert models[0].created == 1_700_000_000


async def test_a_replica_is_live_at_once_and_ready_when_it_knows_a_model() -> None:
    service = FakeLanguage()
    cards, service.cards = service.cards, ()
    async with http_client(app_of(service)) as client:
        assert (await client.get("/health/live")).status_code == 200
        waiting = await client.get("/health/ready")
        service.cards = cards
        ready = await client.get("/health/ready")
    assert (waiting.status_code, waiting.json()["error"]["code"]) == (503, "not_ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})


class Started(FakeLanguage):
    """A service that must be started and closed, as the real one must."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[str] = []

    def start(self) -> None:
        self.running.append("start")

    async def close(self) -> None:
        self.running.append("close")


async def test_the_service_starts_and_closes_with_the_replica_which_is_then_not_ready() -> None:
    service = Started()
    app: Any = app_of(service)
    async with app.router.lifespan_context(app):
        assert service.running == ["start"]
        async with http_client(app) as client:
            assert (await client.get("/health/ready")).status_code == 200
    assert service.running == ["start", "close"]
    async with http_client(app) as client:
        assert (await client.get("/health/ready")).status_code == 503
        assert (await client.get("/health/live")).status_code == 200
