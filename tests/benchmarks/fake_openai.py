"""A server that speaks OpenAI's streaming protocol on loopback and misbehaves when it is told to.

The number of the request decides: the benchmark's counts are then known beforehand.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


@dataclass
class Script:
    """What the n-th chat request meets; every request that is not named is answered whole."""

    overloaded: frozenset[int] = frozenset()
    broken: frozenset[int] = frozenset()
    error_event: frozenset[int] = frozenset()
    truncated: frozenset[int] = frozenset()
    no_usage: frozenset[int] = frozenset()
    silent: frozenset[int] = frozenset()
    first_after_s: float = 0.0
    gap_s: float = 0.0
    bodies: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class FakeServer:
    port: int
    script: Script

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def application(script: Script) -> Starlette:
    async def models(_: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "fake-model", "object": "model"}]})

    async def chat(request: Request) -> Response:
        body = orjson.loads(await request.body())
        number = len(script.bodies)
        script.bodies.append(body)
        if number in script.overloaded:
            error = {"message": "too much", "type": "rate_limit_error", "code": "queue_full"}
            return JSONResponse({"error": error}, 429, headers={"retry-after": "0"})
        if number in script.broken:
            return JSONResponse({"error": {"message": "broken", "code": "engine_error"}}, 500)
        events = _answer(script, number, int(body["max_tokens"]))
        return StreamingResponse(events, media_type="text/event-stream")

    return Starlette(
        routes=[Route("/v1/models", models), Route("/v1/chat/completions", chat, methods=["POST"])]
    )


async def _answer(script: Script, number: int, tokens: int) -> AsyncIterator[bytes]:
    yield b": keepalive 0/12\n\n"
    yield _event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]})
    await asyncio.sleep(60 if number in script.silent else script.first_after_s)
    for at in range(tokens):
        if at == 1 and number in script.error_event:
            yield _event({"error": {"message": "gone", "code": "engine_unavailable"}})
            return
        if at == 1 and number in script.truncated:
            return
        yield _event({"choices": [{"index": 0, "delta": {"content": "a "}}]})
        await asyncio.sleep(script.gap_s)
    yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    if number not in script.no_usage:
        details = {"cached_tokens": 5}
        usage = {"prompt_tokens": 10, "completion_tokens": tokens, "prompt_tokens_details": details}
        yield _event({"choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


@contextmanager
def serving(script: Script) -> Iterator[FakeServer]:
    """The fake on a free port, in a thread of its own, gone when the block ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    port: int = listener.getsockname()[1]
    settings = uvicorn.Config(application(script), log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        give_up_at = time.monotonic() + 10
        while not server.started and time.monotonic() < give_up_at:
            time.sleep(0.01)
        assert server.started
        yield FakeServer(port, script)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
