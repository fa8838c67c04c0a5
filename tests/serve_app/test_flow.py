"""Proves that an upload is held back where Ray Serve would read it whole into memory."""

from __future__ import annotations

import asyncio

import pytest
from ray.serve._private.direct_ingress_http_util import ASGIDIReceiveProxy
from starlette.types import Message, Receive, Scope, Send

from serve_app.fhir.content import body_of
from serve_app.flow import AHEAD_BYTES, Paced, Readers, window_of

PIECE = 64 * 1024
PIECES = 400
SCOPE: Scope = {"type": "http", "method": "POST", "path": "/fhir/Binary", "headers": []}


@pytest.fixture(autouse=True)
def _reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Readers, "here", True)


class Sender:
    """A client that sends as fast as it is let, and then stays."""

    def __init__(self) -> None:
        self.sent = 0

    async def receive(self) -> Message:
        if self.sent == PIECES:
            await asyncio.Event().wait()
        self.sent += 1
        more = self.sent < PIECES
        return {"type": "http.request", "body": bytes(PIECE), "more_body": more}


class Served:
    """Serve's own proxy of a request around a reader that takes its time."""

    def __init__(self, *, release: bool = False) -> None:
        self.gate = asyncio.Event()
        self.read = 0
        self.release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        proxy = ASGIDIReceiveProxy(scope, receive, asyncio.get_running_loop())
        draining = proxy.fetch_until_disconnect_task()
        try:
            window = window_of(scope)
            if self.release:
                assert window is not None
                window.release()
            await self.gate.wait()
            async for piece in body_of(proxy, window):
                self.read += len(piece)
        finally:
            draining.cancel()


async def run(served: Served, sender: Sender, scope: Scope = SCOPE) -> int:
    """Let everything happen that can before the reader begins; how many bytes were sent by then."""

    async def send(_: Message) -> None:
        raise AssertionError

    request = asyncio.create_task(Paced(served)(scope, sender.receive, send))
    await asyncio.sleep(0.2)
    before = sender.sent * PIECE
    served.gate.set()
    await asyncio.wait_for(request, 10)
    assert served.read == PIECES * PIECE
    return before


async def test_no_more_than_a_window_is_read_ahead_and_all_of_it_arrives() -> None:
    assert await run(Served(), Sender()) == AHEAD_BYTES


async def test_a_released_body_and_other_requests_come_as_fast_as_they_can() -> None:
    assert await run(Served(release=True), Sender()) == PIECES * PIECE
    other = {**SCOPE, "path": "/v1/chat/completions"}
    assert await run(Served(), Sender(), other) == PIECES * PIECE


async def test_a_process_that_only_passes_bodies_on_never_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Readers, "here", False)
    assert await run(Served(), Sender()) == PIECES * PIECE


async def test_an_unread_upload_ends_with_its_request() -> None:
    sender = Sender()

    async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
        proxy = ASGIDIReceiveProxy(scope, receive, asyncio.get_running_loop())
        draining = proxy.fetch_until_disconnect_task()
        await asyncio.sleep(0.1)
        draining.cancel()
        await asyncio.wait([draining])

    async def send(_: Message) -> None:
        raise AssertionError

    await asyncio.wait_for(Paced(refusing)(SCOPE, sender.receive, send), 5)
    assert sender.sent * PIECE == AHEAD_BYTES
