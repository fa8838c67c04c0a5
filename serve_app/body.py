"""Reading a request's body: bounded in bytes and time, then strict and unambiguous JSON."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.types import Receive, Scope

from serve_app.errors import (
    BodyTooLarge,
    BodyTooSlow,
    ClientGone,
    InvalidBody,
    UnsupportedMediaType,
)

MAX_DEPTH = 64
MAX_CONTAINERS = 65_536
BODY_TIMEOUT_S = 30.0

_STRUCTURE = b'"\\[]{}'
_NOT_STRUCTURE = bytes(sorted(set(range(256)) - set(_STRUCTURE)))
_STRING = re.compile(rb'"(?:[^"\\]|\\.?)*"?')


async def read_json(
    scope: Scope,
    receive: Receive,
    max_bytes: int,
    media_types: Sequence[str] = ("application/json",),
) -> Any:
    """The body as Python values; raises an `HttpError` that says what is wrong with it."""
    return parse(await read_bytes(scope, receive, max_bytes, media_types))


async def read_bytes(
    scope: Scope, receive: Receive, max_bytes: int, media_types: Sequence[str]
) -> bytes:
    """The body of one of `media_types`, in UTF-8 as far as its headers tell."""
    _check_content_headers(scope, media_types)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read(scope, receive, max_bytes)
    except TimeoutError:
        message = f"The body did not arrive within {BODY_TIMEOUT_S:.0f} seconds."
        raise BodyTooSlow(message) from None


def _check_content_headers(scope: Scope, media_types: Sequence[str]) -> None:
    headers = dict(scope["headers"])
    media_type, _, parameters = headers.get(b"content-type", b"").partition(b";")
    if media_type.strip().lower().decode("latin-1") not in media_types:
        raise UnsupportedMediaType(f"The content-type must be {' or '.join(media_types)}.")
    charset = parameters.lower().replace(b" ", b"").replace(b'"', b"")
    if charset not in (b"", b"charset=utf-8"):
        raise UnsupportedMediaType("The only content-type parameter read is charset=utf-8.")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType("The body must not be compressed or otherwise encoded.")


async def _read(scope: Scope, receive: Receive, max_bytes: int) -> bytes:
    too_large = BodyTooLarge(f"The body may have at most {max_bytes} bytes.")
    announced = dict(scope["headers"]).get(b"content-length", b"")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def parse(body: bytes) -> Any:
    """Strict JSON (RFC 8259): UTF-8, finite numbers, whole characters, no key twice, bounded depth.

    Integers beyond 64 bits come back as floats and so fail wherever an integer is expected.
    """
    _check_depth(body)
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # Only the place is told: the parser's message may quote what it met.
        raise InvalidBody(f"The body is not valid JSON, at byte {error.pos}.") from None
    # orjson keeps the last of two equal keys; a second, value-blind pass finds them.
    json.loads(body, object_pairs_hook=_refuse_repeated, parse_int=_skip, parse_float=_skip)
    return values


def _skip(_number: str) -> None:
    return None


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    if len(pairs) > 1 and len({key for key, _ in pairs}) != len(pairs):
        raise InvalidBody("An object in the body has the same key twice.")


def _check_depth(body: bytes) -> None:
    """Refuse nesting that would cost a parser its stack, before any parser sees it."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    structure = body.translate(None, _NOT_STRUCTURE)
    if b"\\" in structure:
        # Escapes only matter with the letters beside them in place.
        structure = _STRING.sub(b"", body).translate(None, _NOT_STRUCTURE)
    else:
        structure = _STRING.sub(b"", structure)
    depth = containers = 0
    for byte in structure:
        if byte in b"[{":
            depth += 1
            containers += 1
            if depth > MAX_DEPTH:
                raise InvalidBody(f"The body is nested more than {MAX_DEPTH} levels deep.")
            if containers > MAX_CONTAINERS:
                raise InvalidBody(f"The body has more than {MAX_CONTAINERS} lists and objects.")
        elif byte in b"]}":
            depth -= 1
