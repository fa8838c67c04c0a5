from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import RequestIdMiddleware, validate_http_proxy_callback_return
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from serve_app.ingress import ServeAnswers, middlewares
from tests.serve_app.fake_language import FakeLanguage, RawConnection, app_of, http_client


class Server:
    """Ray Serve's server: its own middleware around an answer."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
        self.seen: list[tuple[bytes, bytes]] = []
        self.app = ServeAnswers(RequestIdMiddleware(self._answer))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen = list(scope["headers"])
        await self.answer(scope, receive, send)

    async def get(self, path: str = "/v1/models", **headers: str) -> httpx.Response:
        async with http_client(self.app) as client:
            return await client.get(
                path, headers={k.replace("_", "-"): headers[k] for k in headers}
            )


def test_serve_accepts_the_list_that_its_callback_returns() -> None:
    assert validate_http_proxy_callback_return(middlewares())


@pytest.mark.parametrize(
    ("status", "told", "code"),
    [
        (404, 404, "not_found"),
        (408, 504, "deadline_exceeded"),
        (429, 429, "rate_limit_exceeded"),
        (500, 500, "internal_error"),
        (503, 503, "engine_unavailable"),
    ],
)
async def test_what_serve_answers_in_plain_text_gets_the_surfaces_shape(
    status: int, told: int, code: str
) -> None:
    answer = await Server(PlainTextResponse("Path '/secret' not found", status)).get()
    assert answer.status_code == told
    assert answer.json()["error"]["code"] == code
    assert "secret" not in answer.text
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert ("retry-after" in answer.headers) == (told in (429, 503))


async def test_a_delay_that_serve_gives_is_kept() -> None:
    answer = await Server(PlainTextResponse("busy", 429, {"retry-after": "7"})).get()
    assert answer.headers.get_list("retry-after") == ["7"]


async def test_the_applications_own_errors_pass_as_they_are() -> None:
    answer = await Server(JSONResponse({"error": {"code": "mine"}}, 429)).get()
    assert answer.json() == {"error": {"code": "mine"}}


async def test_one_id_comes_back_though_serve_adds_one_of_its_own() -> None:
    async with http_client(ServeAnswers(RequestIdMiddleware(app_of(FakeLanguage())))) as client:
        answer = await client.get("/health/live", headers={"x-request-id": "ward-7"})
        assert answer.headers.get_list("x-request-id") == ["ward-7"]
        answer = await client.get("/health/live", headers={"x-request-id": "not valid"})
        assert len(answer.headers.get_list("x-request-id")) == 1
        assert answer.headers["x-request-id"] != "not valid"


async def test_callers_cannot_switch_off_serves_limits() -> None:
    server = Server(PlainTextResponse("ok"))
    await server.get(x_request_timeout_seconds="0", x_request_disconnect_disabled="?1")
    assert not {name for name, _ in server.seen if b"timeout" in name or b"disconnect" in name}


async def test_headers_that_serve_cannot_decode_do_not_reach_it() -> None:
    server = Server(PlainTextResponse("ok"))
    connection = RawConnection(
        "/v1/models", "GET", headers=[(b"\xff", b"a"), (b"b", b"c")], signed_in=False
    )
    await connection.run(server.app)
    assert connection.status == 200
    assert {name for name, _ in server.seen} == {b"b", b"x-request-id"}


async def test_serves_own_probe_is_left_alone() -> None:
    answer = await Server(PlainTextResponse("draining", 503)).get("/-/healthz")
    assert answer.text == "draining"


async def test_an_exception_within_serve_is_answered_and_not_raised() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError("Maria")

    connection = RawConnection("/v1/models", "GET", ())
    await connection.run(ServeAnswers(broken))
    assert connection.status == 500
    assert b"internal_error" in connection.body
    assert b"Maria" not in connection.body


async def spoken(answer: Receive | None = None, *messages: dict[str, object]) -> list[Any]:
    """What a WebSocket's server is given when Serve's server sends these."""
    sent: list[Any] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if answer is not None:
            await answer()

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/v1/alerts/stream", "headers": []}
    await ServeAnswers(serve)(scope, receive, send)
    return sent


async def test_what_serve_answers_to_a_websocket_becomes_an_answer_that_its_server_takes() -> None:
    start = {"type": "http.response.start", "status": 429, "headers": [(b"retry-after", b"7")]}
    begun, rest = await spoken(None, start, {"type": "http.response.body", "body": b"busy"})
    assert (begun["type"], begun["status"]) == ("websocket.http.response.start", 429)
    assert (b"retry-after", b"7") in begun["headers"]
    assert [name for name, _ in begun["headers"]].count(b"x-request-id") == 1
    assert rest["type"] == "websocket.http.response.body"
    assert b"rate_limit_exceeded" in rest["body"]


async def test_an_accepted_websocket_bears_the_requests_id_and_its_end_is_no_failure() -> None:
    async def client_left() -> Any:
        raise asyncio.CancelledError

    (accepted,) = await spoken(client_left, {"type": "websocket.accept"})
    assert [name for name, _ in accepted["headers"]] == [b"x-request-id"]


async def test_a_cancellation_from_outside_is_not_swallowed() -> None:
    async def forever() -> Any:
        await asyncio.Event().wait()

    task = asyncio.ensure_future(spoken(forever, {"type": "websocket.accept"}))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
