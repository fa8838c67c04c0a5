"""/internal/models: the other cell reads this one's store. Only what a manifest names goes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from deployments.site.models.errors import StoreError
from deployments.site.models.manifest import Entry, Manifest, read
from deployments.site.models.store import CURRENT, Model, Store, is_version
from deployments.site.models.verification import BLOCK
from serve_app.fhir.content import Download, Streams, range_of

AT_ONCE = 4
_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Models:
    """The store as the other cell sees it, for one process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # Clients' requests come first here.
        self._streams = Streams(AT_ONCE, "Too many model files at once.", retry_after_s=2.0)

    async def manifest(self, request: Request) -> Response:
        """The manifest of a version, or of the current one."""
        _, manifest = await self._found(request)
        return Response(manifest.data(), media_type="application/json", headers=_HEADERS)

    async def file(self, request: Request) -> Response:
        """One file of a version, or a range of it."""
        folder, manifest = await self._found(request)
        entry = manifest.entry(request.path_params["path"])
        if entry is None:
            raise HTTPException(404)
        part = None if entry.size == 0 else range_of(request, entry.size)
        start, end = part or (0, entry.size)
        headers = {
            **_HEADERS,
            "content-type": "application/octet-stream",
            "content-length": str(end - start),
            "accept-ranges": "bytes",
        }
        if part is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{entry.size}"
        pieces = self._streams.counted(_pieces(folder / entry.path, entry, start, end))
        # What cannot be opened shows here, while it can still be told.
        first = await anext(pieces, b"")
        return Download(first, pieces, 200 if part is None else 206, headers)

    async def _found(self, request: Request) -> tuple[Path, Manifest]:
        """The folder and the manifest of what is asked for; 404 where it is not here."""
        name, version = request.path_params["name"], request.path_params["version"]
        try:
            return await asyncio.to_thread(_version, self._store.model(name), version)
        except StoreError:
            raise HTTPException(404) from None


def model_routes(store: Store) -> APIRouter:
    """The routes; clients of the API never see them."""
    at = Models(store)
    router = APIRouter(prefix="/internal/models", include_in_schema=False)
    router.add_api_route("/{name}/{version}/manifest", at.manifest, methods=["GET"])
    router.add_api_route("/{name}/{version}/files/{path:path}", at.file, methods=["GET"])
    return router


def _version(model: Model, text: str) -> tuple[Path, Manifest]:
    version = model.current if text == CURRENT else text
    if version is None or not is_version(version):
        raise StoreError(f"{model.name} has no such version")
    folder = model.path_of(version)
    return folder, read(folder, version)


async def _pieces(file: Path, entry: Entry, start: int, end: int) -> AsyncGenerator[bytes, None]:
    try:
        stream = await asyncio.to_thread(file.open, "rb", 0)
    except OSError:
        raise HTTPException(404) from None
    with stream:
        stream.seek(start)
        while start < end:
            piece = await asyncio.to_thread(stream.read, min(BLOCK, end - start))
            if not piece:
                # Shorter than the manifest says: the connection breaks off, and the reader knows.
                raise EOFError(f"{entry.path} is shorter than its manifest says")
            start += len(piece)
            yield piece
