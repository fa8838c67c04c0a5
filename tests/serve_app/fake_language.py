"""A language service that plays a script: the protocol boundary behind the HTTP surface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

import httpx
import httpx2
import openai
from starlette.types import ASGIApp

from configs.args import Limits
from deployments.ai.client import CellState, ModelCard
from deployments.data.principal import Principal
from models.generation import ChatRequest, Delta, Done, Event, Finish, Usage
from serve_app.surface import create_app
from tests.serve_app.fake_security import PHYSICIAN, TOKEN, FakeRecord, services_of

MODEL = "gemma3-demo"
WEIGHTS = "0123456789abcdef" * 4
HELLO: tuple[Sequence[Event], ...] = (
    (Delta(0, "Pressure ", 1),),
    (Delta(0, "is ", 1), Delta(0, "120/80", 3)),
    (Finish(0, "stop"), Done(Usage(prompt_tokens=7, cached_tokens=4, completion_tokens=5))),
)
SIGNED_IN = {"authorization": f"Bearer {TOKEN}"}
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
Step = Sequence[Event] | Exception | Callable[[], Awaitable[None]]


class FakeLanguage:
    """Answers every chat with `script`; an exception in it is raised, a function awaited."""

    def __init__(self, *script: Step, closed: Mapping[str, str] | None = None) -> None:
        self.script: tuple[Step, ...] = script or HELLO
        self.requests: list[ChatRequest] = []
        self.sessions: list[str] = []
        self.arrivals: asyncio.Queue[ChatRequest] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.completed = False
        self.cards: tuple[ModelCard, ...] = (ModelCard(MODEL, 1_700_000_000, 8192, WEIGHTS),)
        self.loading: tuple[str, ...] = ()
        self.closed = dict(closed or {})

    def state(self) -> CellState:
        return CellState(models=self.cards, closed=self.closed, loading=self.loading)

    async def chat(
        self, model: str, request: ChatRequest, session: str
    ) -> AsyncIterator[Sequence[Event]]:
        self.requests.append(request)
        self.arrivals.put_nowait(request)
        self.sessions.append(session)
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if callable(step):
                    await step()
                else:
                    yield step
            self.completed = True
        finally:
            self.ended.set()


def app_of(
    service: FakeLanguage,
    record: FakeRecord | None = None,
    principal: Principal = PHYSICIAN,
    **limits: float,
) -> ASGIApp:
    """The surface over `service`; what it puts on record goes to `record`."""
    return create_app(services_of(service, record, principal), Limits(**limits))


def http_client(app: ASGIApp) -> httpx.AsyncClient:
    """A plain client of `app`, signed in."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://cell", headers=SIGNED_IN
    )


def openai_client(app: ASGIApp) -> openai.AsyncOpenAI:
    """OpenAI's own client of `app`, without its repetitions."""
    return openai.AsyncOpenAI(
        api_key=TOKEN,
        base_url="http://cell/v1",
        max_retries=0,
        http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(app)),
    )


class RawConnection:
    """One request spoken in ASGI messages, for what a client library cannot show."""

    def __init__(
        self,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        headers: Sequence[tuple[bytes, bytes]] = ((b"content-type", b"application/json"),),
        *,
        signed_in: bool = True,
    ) -> None:
        credentials = ((b"authorization", b"Bearer " + TOKEN.encode()),) if signed_in else ()
        self.scope: MutableMapping[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*headers, *credentials],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[MutableMapping[str, Any]] = []
        self.first_body = asyncio.Event()

    def give(self, body: bytes, *, more: bool = False) -> RawConnection:
        """Let a part of the body arrive."""
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})
        return self

    def leave(self) -> None:
        """Close the client's side."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.first_body.set()

    async def run(self, app: ASGIApp) -> None:
        """Serve the request to its end."""
        await app(self.scope, self.incoming.get, self.send)

    @property
    def status(self) -> int | None:
        return self.sent[0]["status"] if self.sent else None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return list(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(m["body"] for m in self.sent if m["type"] == "http.response.body")
