"""Backpressure for uploads through Ray Serve, whose server reads a body as fast as it comes.

Serve's direct ingress drains every request into a queue without a bound, so a long upload would lie in
memory whole (ray/serve/_private/direct_ingress_http_util.py, 2.60). `Paced` stands before that server
and reads on only as the reader behind it says what it has taken.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

AHEAD_BYTES = 1024 * 1024
_KEY = "medrec.flow"
_UPLOADS = "/fhir/Binary"
_COPIES = "/internal/blobs/"


class Readers:
    """Whether this process reads uploads. Serve's proxy process does not, and must not wait."""

    here = False


class Window:
    """What has been read of one body and not been taken yet."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._ahead = 0
        self._room = asyncio.Event()
        self._room.set()
        self._open = False

    async def receive(self) -> Message:
        """The next message, once there is room for it."""
        await self._room.wait()
        message = await self._receive()
        self._moved(len(message.get("body", b"")))
        return message

    def taken(self, size: int) -> None:
        """The reader has dealt with so many bytes. It may run in another thread's loop."""
        self._loop.call_soon_threadsafe(self._moved, -size)

    def release(self) -> None:
        """From now on the body comes as fast as it can: the reader has a bound of its own."""
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._open = True
        self._room.set()

    def _moved(self, size: int) -> None:
        self._ahead += size
        if self._open or self._ahead < AHEAD_BYTES:
            self._room.set()
        else:
            self._room.clear()


def window_of(scope: Scope) -> Window | None:
    """The window of a request; None where no server reads ahead."""
    window = scope.get(_KEY)
    return window if isinstance(window, Window) else None


class Paced:
    """ASGI middleware around Serve's server: uploads are read no further ahead than a window."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Readers.here and scope["type"] == "http" and _is_upload(scope):
            window = Window(receive)
            scope, receive = {**scope, _KEY: window}, window.receive
        await self.app(scope, receive, send)


def _is_upload(scope: Scope) -> bool:
    method, path = scope["method"], scope["path"]
    is_copy = method == "PUT" and path.startswith(_COPIES)
    return is_copy or (method, path) == ("POST", _UPLOADS)
