"""Pure ASGI middlewares of the whole surface: the access record, and one error shape on every path.

Starlette's BaseHTTPMiddleware would put a queue between a stream and its client, so it is not used.
"""

from __future__ import annotations

import logging
import time

import orjson
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.denials import Denials
from serve_app.errors import (
    ClientGone,
    ErrorAnswer,
    HeadersTooLarge,
    Surface,
    answer_for,
    report_unexpected,
    surface_of,
)
from serve_app.metrics import Meters
from serve_app.trace import HEADED, Trace, trace_of

CLIENT_CLOSED = 499
SWITCHING = 101
_INTERNAL_ERROR = 1011
_DENIED = (401, 403)
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

_access = logging.getLogger("medrec.access")


async def send_error(answer: ErrorAnswer, send: Send, surface: Surface, prefix: str = "") -> None:
    """Send `answer` as a whole response, in the shape of `surface`.

    `prefix` is `websocket.` where a WebSocket is refused before it began.
    """
    body = answer.body(surface)
    headers = [*answer.response_headers(surface), (b"content-length", b"%d" % len(body))]
    start, rest = f"{prefix}http.response.start", f"{prefix}http.response.body"
    await send({"type": start, "status": answer.status, "headers": headers})
    await send({"type": rest, "body": body})


class Errors:
    """ASGI middleware: whatever is raised inside becomes an answer in the surface's error shape.

    A refusal for want of a right is put on record before it is told. A WebSocket is refused by the
    same answers until it is accepted.
    """

    def __init__(self, app: ASGIApp, *, denials: Denials) -> None:
        self.app = app
        self._denials = denials

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        is_websocket = scope["type"] == "websocket"
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            if message["type"] == "websocket.close" and not started:
                # How a router says that there is no such path.
                raise HTTPException(404)
            started = True
            await send(message)

        trace = trace_of(scope)
        try:
            _check_headers(scope)
            await self.app(scope, receive, send_and_note)
        except ClientGone:
            return
        except Exception as error:
            answer = answer_for(error, trace.request_id)
            report_unexpected(error, trace.request_id)
            if answer.status in _DENIED:
                answer = await self._recorded(answer, scope)
            trace.code = answer.code
            if started:
                # The response cannot be completed; returning makes the server drop the connection.
                if is_websocket:
                    await send({"type": "websocket.close", "code": _INTERNAL_ERROR})
                return
            prefix = "websocket." if is_websocket else ""
            await send_error(answer, send, surface_of(scope["path"]), prefix)

    async def _recorded(self, answer: ErrorAnswer, scope: Scope) -> ErrorAnswer:
        """The same answer once it is on record, or the one that says why it cannot be."""
        try:
            await self._denials.record(scope, answer.status, answer.code)
        except Exception as error:
            request_id = trace_of(scope).request_id
            report_unexpected(error, request_id)
            return answer_for(error, request_id)
        return answer


def _check_headers(scope: Scope) -> None:
    headers = scope["headers"]
    size = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        raise HeadersTooLarge(
            f"At most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes in all are read."
        )


class AccessLog:
    """ASGI middleware: one line of JSON and one set of measurements a request, by ids only."""

    def __init__(self, app: ASGIApp, *, meters: Meters) -> None:
        self.app = app
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = CLIENT_CLOSED

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] in HEADED:
                status = message.get("status", SWITCHING)
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            trace = trace_of(scope)
            duration_s = time.monotonic() - trace.began_s
            route = _route_template(scope)
            self.meters.request_ended(trace, route, status, duration_s)
            if _access.isEnabledFor(logging.INFO):
                _access.info(
                    "%s", _line(trace, scope.get("method", "GET"), route, status, duration_s)
                )


def _route_template(scope: Scope) -> str:
    """The matched route as it is declared, so that no part of a caller's path is written down."""
    return getattr(scope.get("route"), "path", "") or "unmatched"


_METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"))


def _line(trace: Trace, method: str, route: str, status: int, duration_s: float) -> str:
    line: dict[str, object] = {
        "event": "request",
        "request_id": trace.request_id,
        "method": method if method in _METHODS else "other",
        "route": route,
        "status": status,
        "duration_s": round(duration_s, 4),
    }
    if trace.code:
        line["code"] = trace.code
    if trace.model:
        line |= {
            "model": trace.model,
            "stream": trace.streamed,
            "prompt_tokens": trace.prompt_tokens,
            "cached_tokens": trace.cached_tokens,
            "completion_tokens": trace.completion_tokens,
        }
    if trace.first_token_s is not None:
        line["first_token_s"] = round(trace.first_token_s - trace.began_s, 4)
    return orjson.dumps(line).decode()
