"""`/internal/blobs/{name}`: sealed files between the cells, named by the SHA-256 of what is sent.

No audit entry is made: whoever copies sealed bytes reads nothing, and has no key by them.
"""

from __future__ import annotations

import re

import orjson
from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from deployments.data.blobs import Blobs
from deployments.data.blobs.copies import BlobCorrupt
from deployments.data.errors import Invalid, TooLarge
from serve_app.fhir import content
from serve_app.flow import Readers, window_of

AT_ONCE = 32
_NAME = re.compile(r"[0-9a-f]{64}")
_OCTETS = "application/octet-stream"


class Exchange:
    """What the other cell may do with this one's blobs, for one process."""

    def __init__(self, blobs: Blobs) -> None:
        self._copies = blobs.copies
        self._largest = blobs.max_stored_size
        self._streams = content.Streams(AT_ONCE, "Too many copies at once.", retry_after_s=1.0)

    async def head(self, request: Request) -> Response:
        """Whether it is here, and how long it is."""
        size = await self._copies.size(_name_of(request))
        if size is None:
            raise HTTPException(404)
        return Response(headers={"content-length": str(size), "content-type": _OCTETS})

    async def put(self, request: Request) -> Response:
        """Durable under its name before the answer; a damaged file that was there is replaced."""
        name = _name_of(request)
        announced = content.announced_of(request)
        if not announced:
            raise Invalid("A copy needs its content-length.", param="Content-Length")
        if announced > self._largest:
            raise TooLarge("This is more than `records.max_upload_mb` of content can take.")
        with self._streams.one():
            was_there = await self._copies.size(name) is not None
            pieces = content.body_of(request.receive, window_of(request.scope))
            await self._copies.take(name, pieces, announced=announced)
        body = orjson.dumps({"name": name, "size": announced})
        return Response(body, 200 if was_there else 201, media_type="application/json")

    async def get(self, request: Request) -> Response:
        """The file, if it is what it was; whoever takes it checks it again."""
        name = _name_of(request)
        size = await self._copies.size(name)
        if size is None:
            raise HTTPException(404)
        with self._streams.one():
            if not await self._copies.verify(name):
                raise BlobCorrupt("The content of this document is damaged on this machine.")
        pieces = self._streams.counted(self._copies.give(name))
        first = await anext(pieces, b"")
        headers = {"content-type": _OCTETS, "content-length": str(size)}
        return content.Download(first, pieces, 200, headers)


def blob_routes(blobs: Blobs) -> APIRouter:
    """The routes, for hosts of the site; see gate.py."""
    at = Exchange(blobs)
    Readers.here = True
    router = APIRouter(prefix="/internal/blobs", include_in_schema=False)
    for method, handler in (("HEAD", at.head), ("PUT", at.put), ("GET", at.get)):
        router.add_api_route("/{name}", handler, methods=[method])
    return router


def _name_of(request: Request) -> str:
    name: str = request.path_params["name"]
    if not _NAME.fullmatch(name):
        raise HTTPException(404)
    return name
