"""A streaming HTTP client that costs little: the generator shares its cores with the server.

One asyncio protocol a connection, llhttp for the framing, orjson for the events; no task, no object
and no copy for a piece of text that is not needed.
"""

from __future__ import annotations

import asyncio
import time
from typing import cast

import httptools
import orjson

from benchmarks.outcome import OVERLOADED, Outcome
from benchmarks.sse import DONE, EventParser, MalformedStream
from benchmarks.targets import Target

CONNECT_TIMEOUT_S = 10.0
MAX_ERROR_BYTES = 65_536


class Connection(asyncio.Protocol):
    """One connection and the exchange that is on it; used for one exchange at a time."""

    def __init__(self) -> None:
        self.is_open = False
        self.exchanges = 0
        self._transport: asyncio.Transport | None = None
        self._settled: asyncio.Future[None] | None = None
        self._outcome = Outcome(0.0)
        self._now = 0.0

    async def exchange(self, request: bytes, outcome: Outcome) -> None:
        """Sends `request` and fills `outcome` until the answer ends or the connection does."""
        assert self._transport is not None
        self._outcome = outcome
        self._parser = httptools.HttpResponseParser(self)
        self._events = EventParser()
        self._error = b""
        self._answered = self._done = False
        self._settled = asyncio.get_running_loop().create_future()
        self.exchanges += 1
        self._transport.write(request)
        await self._settled

    @property
    def answered(self) -> bool:
        """Whether any byte of the answer has come."""
        return self._answered

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        self._answered = True
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, MalformedStream, orjson.JSONDecodeError):
            self._fail("malformed")
            self.close()
            self._settle()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._settled is None or self._settled.done():
            return
        self._now = time.perf_counter()
        if not self._answered or exc is not None:
            self._fail("reset")
        self._finish()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after" and value.isdigit():
            self._outcome.retry_after_s = float(value)

    def on_body(self, body: bytes) -> None:
        if self._parser.get_status_code() == 200:
            for event in self._events.feed(body):
                self._take(event)
        elif len(self._error) < MAX_ERROR_BYTES:
            self._error += body

    def on_message_complete(self) -> None:
        if not self._parser.should_keep_alive():
            self.is_open = False
        self._finish()

    def _take(self, event: bytes) -> None:
        if event == DONE:
            self._done = True
            return
        chunk = orjson.loads(event)
        outcome = self._outcome
        if error := chunk.get("error"):
            code = error.get("code") if isinstance(error, dict) else None
            self._fail(f"stream {code or 'error'}")
        for choice in chunk.get("choices") or ():
            if (choice.get("delta") or {}).get("content"):
                if not outcome.arrivals:
                    outcome.first = self._now
                # Pieces that come in one read are one to the reader: no gap lies between them.
                if not outcome.arrivals or outcome.arrivals[-1] != self._now:
                    outcome.arrivals.append(self._now)
            if reason := choice.get("finish_reason"):
                outcome.finish_reason = reason
        if usage := chunk.get("usage"):
            outcome.prompt_tokens = usage["prompt_tokens"]
            outcome.completion_tokens = usage["completion_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            outcome.cached_tokens = details.get("cached_tokens") or 0

    def _finish(self) -> None:
        status = self._parser.get_status_code() if self._answered else 0
        if status == 429:
            self._fail(OVERLOADED)
        elif status not in (0, 200):
            self._fail(f"http {status}")
        elif not self._done:
            self._fail("truncated")
        elif not self._outcome.completion_tokens:
            self._fail("no usage")
        self._settle()

    def _fail(self, kind: str) -> None:
        self._outcome.failure = self._outcome.failure or kind

    def _settle(self) -> None:
        self._outcome.ended = self._now
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)


class ChatClient:
    """Streams chat completions from one target, over connections that it keeps and reuses."""

    def __init__(self, target: Target, model: str, timeout_s: float) -> None:
        self.target = target
        self.timeout_s = timeout_s
        self._model = model
        self._idle: list[Connection] = []

    def encode(self, messages: list[dict[str, str]], max_tokens: int) -> bytes:
        """A plain greedy streaming request that asks for usage, as the bytes that go out."""
        body = orjson.dumps(
            {
                "model": self._model,
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
        )
        credentials = "".join(f"{name}: {value}\r\n" for name, value in self.target.headers.items())
        head = (
            f"POST {self.target.path}/v1/chat/completions HTTP/1.1\r\n"
            f"host: {self.target.authority}\r\n{credentials}"
            "content-type: application/json\r\naccept: text/event-stream\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def chat(self, request: bytes, due: float) -> Outcome:
        """One request from its time `due` to its end; whatever goes wrong is in the outcome."""
        outcome = Outcome(due)
        connection: Connection | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                connection = await self._connection()
                await connection.exchange(request, outcome)
                if outcome.failure and connection.exchanges > 1 and not connection.answered:
                    # An idle connection that the server had closed: any client would ask again.
                    outcome = Outcome(due, reconnected=True)
                    connection = await self._connect()
                    await connection.exchange(request, outcome)
        except TimeoutError:
            outcome.failure, outcome.ended = "timeout", time.perf_counter()
        except OSError:
            outcome.failure, outcome.ended = "connect", time.perf_counter()
        if connection is not None:
            if connection.is_open and outcome.failure in ("", OVERLOADED):
                self._idle.append(connection)
            else:
                connection.close()
        return outcome

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
        return await self._connect()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(min(CONNECT_TIMEOUT_S, self.timeout_s)):
            _, connection = await loop.create_connection(
                Connection, self.target.host, self.target.port
            )
        return connection

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()
