"""What is known of one HTTP request while it runs; access line and metrics come from it."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import Header

# The messages that carry an answer's headers, of HTTP and of a WebSocket's beginning.
HEADED = ("http.response.start", "websocket.accept", "websocket.http.response.start")
_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


@dataclass(slots=True)
class Trace:
    """Ids, times and counts of one request; no text of it. Times are monotonic seconds."""

    request_id: str
    began_s: float = field(default_factory=time.monotonic)
    first_token_s: float | None = None
    model: str = ""
    streamed: bool = False
    code: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def token_arrived(self) -> None:
        """Note the time of the first token."""
        if self.first_token_s is None:
            self.first_token_s = time.monotonic()


def trace_of(scope: Scope) -> Trace:
    """The trace that `RequestIds` put into the scope."""
    trace: Trace = scope["medrec.trace"]
    return trace


def request_id_from(headers: list[Header]) -> tuple[str, bool]:
    """The request's id, and whether it is the caller's own (`x-request-id`, once, well-formed)."""
    given = [value for name, value in headers if name == b"x-request-id"]
    if len(given) == 1 and _VALID_ID.fullmatch(given[0]):
        return given[0].decode("ascii"), True
    return uuid.uuid4().hex, False


class RequestIds:
    """ASGI middleware: every request gets an id and a trace, every response the id as a header.

    Ray Serve's own servers echo a request's `x-request-id` too; `echoed_outside` says that they
    stand before this process, so that the header is not sent twice.
    """

    def __init__(self, app: ASGIApp, *, echoed_outside: bool = False) -> None:
        self.app = app
        self.echoed_outside = echoed_outside

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id, given = request_id_from(scope["headers"])
        scope["medrec.trace"] = Trace(request_id)
        if given and self.echoed_outside:
            await self.app(scope, receive, send)
            return
        header = (b"x-request-id", request_id.encode("ascii"))

        async def send_with_id(message: Message) -> None:
            if message["type"] in HEADED:
                message["headers"] = [*message.get("headers", ()), header]
            await send(message)

        await self.app(scope, receive, send_with_id)
