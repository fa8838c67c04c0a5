"""Middlewares for Ray Serve's own HTTP servers: what those answer by themselves gets our shape.

Serve loads them by `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve_app.ingress:middlewares`.
"""

from __future__ import annotations

import asyncio

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import ErrorAnswer, Header, Surface, report_unexpected, surface_of
from serve_app.flow import Paced
from serve_app.trace import HEADED, request_id_from

# A caller could switch off Serve's time limit and its handling of disconnects by these.
_STRIPPED = frozenset(
    (b"x-request-id", b"x-request-timeout-seconds", b"x-request-disconnect-disabled")
)

_JSON = (b"application/json", b"application/fhir+json", b"application/problem+json")
_ANSWERS = {
    404: ("invalid_request_error", "not_found", "There is nothing at this path."),
    408: ("timeout_error", "deadline_exceeded", "The request's time limit passed."),
    429: ("rate_limit_error", "rate_limit_exceeded", "Too many requests at once; try again."),
    503: ("server_error", "engine_unavailable", "The service is not available now; try again."),
}


def middlewares() -> list[Middleware]:
    """What Serve puts around its servers."""
    return [Middleware(ServeAnswers), Middleware(Paced)]


class ServeAnswers:
    """ASGI middleware around Serve's server: one valid `x-request-id`, and errors in one shape.

    Serve answers some errors itself, in plain text: no replica, a full queue, a time limit. To a
    WebSocket it sends them as it would to a request, which no server takes: they are put right here.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith("/-/"):
            await self.app(scope, receive, send)
            return
        request_id, _ = request_id_from(scope["headers"])
        surface = surface_of(scope["path"])
        id_header = (b"x-request-id", request_id.encode("ascii"))
        kept = [header for header in scope["headers"] if _acceptable(header)]
        scope = {**scope, "headers": [*kept, id_header]}
        prefix = "websocket." if scope["type"] == "websocket" else ""
        started = replaced = False

        async def send_shaped(message: Message) -> None:
            nonlocal started, replaced
            started = True
            if replaced:
                return
            if message["type"] in HEADED:
                headers = [h for h in message.get("headers", ()) if h[0].lower() != b"x-request-id"]
                status = message.get("status", 101)
                if status >= 400 and not _is_json(headers):
                    replaced = True
                    await _send_shaped(surface, status, headers, id_header, send, prefix)
                    return
                message = {**message, "headers": [*headers, id_header]}
            await send(message)

        try:
            await self.app(scope, receive, send_shaped)
        except asyncio.CancelledError:
            # Serve raises it for a client that left, and the server would log that as a failure.
            task = asyncio.current_task()
            if not prefix or task is None or task.cancelling():
                raise
        except Exception as error:
            # Serve's server would log the exception with its message, and answer in plain text.
            report_unexpected(error, request_id)
            if not started:
                await _send_shaped(surface, 500, [], id_header, send, prefix)


def _acceptable(header: Header) -> bool:
    # Serve decodes every header's name as UTF-8 and fails at one that is not.
    return header[0] not in _STRIPPED and header[0].isascii()


def _is_json(headers: list[Header]) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(_JSON) for name, value in headers
    )


async def _send_shaped(
    surface: Surface,
    status: int,
    headers: list[Header],
    id_header: Header,
    send: Send,
    prefix: str,
) -> None:
    unknown = ("server_error", "internal_error", "The server failed at this request.")
    kind, code, message = _ANSWERS.get(status, unknown)
    status = 504 if status == 408 else status
    answer = ErrorAnswer(status, kind, code, message)
    body = answer.body(surface)
    given = [h for h in headers if h[0].lower() == b"retry-after"]
    own = [h for h in answer.response_headers(surface) if not given or h[0] != b"retry-after"]
    length = (b"content-length", b"%d" % len(body))
    all_headers = [*own, *given, length, id_header]
    start, rest = f"{prefix}http.response.start", f"{prefix}http.response.body"
    await send({"type": start, "status": status, "headers": all_headers})
    await send({"type": rest, "body": body})
