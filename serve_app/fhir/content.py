"""Content as bytes over HTTP: taken in at the sender's pace but not slower, given out in ranges."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from deployments.data.errors import Invalid, TooMany
from serve_app.errors import BodyTooSlow, ClientGone, HttpError, UnsupportedMediaType
from serve_app.flow import Window

# A sender may pause so long, and must reach this rate on the whole.
IDLE_S = 20.0
GRACE_S = 20.0
LEAST_BYTES_PER_S = 32 * 1024
# A reader must take what was sent within this time.
SEND_S = 60.0
MAX_CONTENT_TYPE = 255

_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,100}"
_MEDIA_TYPE = re.compile(rf'{_TOKEN}/{_TOKEN}(?: ?; ?{_TOKEN}=(?:{_TOKEN}|"[A-Za-z0-9 :/_.+-]*"))*')
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})")


class RangeNotSatisfiable(HttpError):
    """The caller's fault: the range begins behind the content's end."""

    status = 416
    code = "range_not_satisfiable"


class Streams:
    """So many uploads and downloads at once in one process; `told` is what one too many is told."""

    def __init__(self, most: int, told: str, *, retry_after_s: float) -> None:
        self.most, self._told, self._retry_after_s = most, told, retry_after_s
        self._open = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more: each holds buffers, a file and a thread's time. Raises `TooMany`."""
        if self._open >= self.most:
            raise TooMany(self._told, code="too_many_streams", retry_after_s=self._retry_after_s)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    async def counted(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The pieces, as one of the streams from the first to the last."""
        with self.one():
            async with aclosing(pieces):
                async for piece in pieces:
                    yield piece


def content_type_of(request: Request) -> str:
    """The media type of what is sent. Raises `UnsupportedMediaType`."""
    text = request.headers.get("content-type", "").strip()
    if not is_media_type(text):
        raise UnsupportedMediaType("The content-type must be the media type of what is uploaded.")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("The body must not be compressed or otherwise encoded.")
    return text


def is_media_type(text: str) -> bool:
    """Whether a text is a media type that may stand in a header again."""
    return len(text) <= MAX_CONTENT_TYPE and _MEDIA_TYPE.fullmatch(text) is not None


def announced_of(request: Request) -> int | None:
    """The body's length if the sender tells it."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Invalid("The content-length is not a length.", param="Content-Length")
    return int(text)


async def body_of(receive: Receive, window: Window | None = None) -> AsyncIterator[bytes]:
    """The body piece by piece; the next is asked for when the last has been dealt with.

    `window` is told what has been dealt with, where a server before us reads ahead.

    Raises `BodyTooSlow` for a sender that pauses or dawdles, `ClientGone` for one that leaves.
    Only the time that the sender takes counts, not ours.
    """
    waited_s = 0.0
    size = 0
    while True:
        left_s = GRACE_S + size / LEAST_BYTES_PER_S - waited_s
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(IDLE_S, left_s))):
                message = await receive()
        except TimeoutError:
            problem = f"The body must arrive at {LEAST_BYTES_PER_S} bytes a second at least"
            raise BodyTooSlow(f"{problem}, with no pause of {IDLE_S:g} seconds.") from None
        waited_s += time.monotonic() - began_s
        if message["type"] == "http.disconnect":
            raise ClientGone
        if piece := message.get("body", b""):
            size += len(piece)
            yield piece
            if window is not None:
                window.taken(len(piece))
        if not message.get("more_body", False):
            return


def range_of(request: Request, size: int) -> tuple[int, int] | None:
    """The one range that is asked for, from and to before; None for the whole.

    A header that is not one range of bytes is passed over, as RFC 9110 (14.2) wants it. Raises
    `RangeNotSatisfiable`.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    # A weak tag never matches If-Range (13.1.5), so the whole is sent to whoever asks by it.
    if found is None or "if-range" in request.headers or found.group(1, 2) == ("", ""):
        return None
    first, last = found.group(1, 2)
    if first == "":
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= end:
        raise RangeNotSatisfiable("The range begins behind the end.", param="Range")
    return start, end


class Download(Response):
    """Content that streams. `pieces` has delivered its first piece already, or is at its end.

    Nothing of it is run or guessed at by a browser: it is saved, whatever type it claims.
    """

    def __init__(
        self,
        first: bytes,
        pieces: AsyncGenerator[bytes, None],
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status)
        self.raw_headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
        ]
        self._first, self._pieces = first, pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        async with aclosing(self._pieces):
            await send({**start, "headers": self.raw_headers})
            await self._send(send, self._first)
            async for piece in self._pieces:
                await self._send(send, piece)
        await send({"type": "http.response.body", "body": b""})

    async def _send(self, send: Send, piece: bytes) -> None:
        if not piece:
            return
        # Whoever stops reading must not hold a file and its buffers.
        try:
            async with asyncio.timeout(SEND_S):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise ClientGone from None
