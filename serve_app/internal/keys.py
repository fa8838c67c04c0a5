"""`/internal/keys`: which keys this cell has, and sealed keys from another cell of the site.

Only ids are told. What is sent opens here alone and must be signed by the cell that calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import Field, ValidationError
from starlette.exceptions import HTTPException

from configs.args import Strict
from deployments.cell.state import CellError
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from deployments.data.errors import Conflict, Invalid
from deployments.site.trust.envelope import MOST_BYTES
from deployments.site.trust.files import HostFiles
from deployments.site.trust.key_files import Imported, details_of, held, import_keys
from serve_app.body import read_bytes
from serve_app.internal.gate import HOST
from serve_app.trace import trace_of

_HEADERS = {"cache-control": "no-store"}


class Sent(Strict):
    """What another cell posts: an envelope of deployments/site/trust/envelope.py, as text."""

    envelope: str = Field(max_length=MOST_BYTES)


def key_routes(
    secrets: Path, tls: Path, senders: Collection[str], audit: Audit, organization: str
) -> APIRouter:
    """The routes of a cell whose certificates lie in `tls`; only `senders` may give it keys."""
    routes = APIRouter()
    own = HostFiles.in_folder(tls)
    one_at_a_time = asyncio.Lock()

    def told() -> bytes:
        certificate = own.certificate.read_text(encoding="ascii")
        return orjson.dumps({"certificate": certificate, **asdict(held(secrets))})

    @routes.get("/internal/keys", include_in_schema=False)
    async def tell(request: Request) -> Response:
        _check(request, senders)
        try:
            body = await asyncio.to_thread(told)
        except (CellError, OSError) as error:
            raise Conflict(str(error)) from error
        return Response(body, media_type="application/json", headers=_HEADERS)

    @routes.post("/internal/keys", include_in_schema=False)
    async def take(request: Request) -> Response:
        sender = _check(request, senders)
        data = _envelope(
            await read_bytes(
                request.scope, request.receive, 2 * MOST_BYTES, media_types=("application/json",)
            )
        )
        try:
            async with one_at_a_time:
                brought = await asyncio.to_thread(
                    import_keys, secrets, own, data, senders=(sender,)
                )
        except CellError as error:
            raise Conflict(str(error)) from error
        await audit.journal(_entry(request, brought, organization))
        return Response(
            orjson.dumps(asdict(brought.held)), media_type="application/json", headers=_HEADERS
        )

    return routes


def _check(request: Request, senders: Collection[str]) -> str:
    """The calling cell; for an edge there is nothing here (404)."""
    sender: str = request.scope[HOST]
    if sender not in senders:
        raise HTTPException(404)
    return sender


def _envelope(body: bytes) -> bytes:
    try:
        return Sent.model_validate_json(body).envelope.encode()
    except ValidationError:
        raise Invalid("This is no sealed envelope of keys.", param="envelope") from None


def _entry(request: Request, brought: Imported, organization: str) -> AuditEntry:
    return AuditEntry(
        action="key-change",
        outcome="success",
        actor=brought.sender,
        actor_kind="host",
        role="service",
        organization=organization,
        request_id=trace_of(request.scope).request_id,
        purpose="HOPERAT",
        details=details_of(brought),
    )
