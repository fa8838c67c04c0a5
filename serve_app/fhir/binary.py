"""/fhir/Binary: content of any type, uploaded and downloaded as a stream.

The resource goes through the records like any other, so that access, versions, audit and repeats
are the same; its bytes lie in a blob whose row commits together with the resource.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
from fastapi import APIRouter, Request, Response

from configs.args import RecordsArgs
from deployments.data import scopes
from deployments.data.blobs import BlobRef, Blobs, Draft
from deployments.data.database import Database
from deployments.data.errors import (
    CommitUnknown,
    DataError,
    Forbidden,
    Gone,
    Unsupported,
)
from deployments.data.principal import Caller
from deployments.data.records.shapes import Stored
from deployments.data.records.store import Records
from deployments.data.repeating import repeated
from serve_app.auth.guard import caller_of
from serve_app.body import read_json
from serve_app.errors import UnsupportedMediaType
from serve_app.fhir import answers, binary_documents, binary_resource, content
from serve_app.fhir import requests as asked
from serve_app.fhir.binary_resource import TYPE, patient_of
from serve_app.fhir.negotiation import (
    FHIR_JSON,
    NotAcceptable,
    check_acceptable,
    pairs_of,
    preferred_return,
    refuse_headers,
    version_of,
    without_fhir_version,
)
from serve_app.flow import Readers, window_of

AT_ONCE = 64
MAX_VERSIONS = 200


class Binaries:
    """The interactions with Binary, for one process."""

    def __init__(
        self,
        records: Records,
        blobs: Blobs,
        database: Database,
        args: RecordsArgs,
        max_json_bytes: int,
    ) -> None:
        self._records, self._blobs, self._database = records, blobs, database
        self._args = args
        self._max_json = max_json_bytes
        self._streams = content.Streams(
            AT_ONCE, "Too many uploads and downloads at once.", retry_after_s=2.0
        )

    async def create(self, request: Request) -> Response:
        """Take content in, as it is or as a Binary in FHIR's JSON."""
        caller = caller_of(request.scope)
        refuse_headers(request, "If-None-Exist")
        asked.without_parameters(request)
        preferred = preferred_return(request)
        content_type = content.content_type_of(request)
        with self._streams.one():
            if content_type.partition(";")[0].strip().lower() == FHIR_JSON:
                resource, data = await self._from_json(request)
                await self._may_write(caller, resource)
                draft = await self._blobs.put(_once(data), announced=len(data))
            else:
                if content_type.lower().startswith("application/fhir+"):
                    raise UnsupportedMediaType("Of FHIR's own formats only JSON is read.")
                context = request.headers.get("x-security-context")
                resource = binary_resource.of_headers(content_type, context)
                announced = content.announced_of(request)
                self._blobs.check_size(announced)
                await self._may_write(caller, resource)
                pieces = content.body_of(request.receive, window_of(request.scope))
                draft = await self._blobs.put(pieces, announced=announced)
        # The upload had its own bounds; what follows has the request's.
        caller = replace(caller, deadline=time.monotonic() + self._args.deadline_s)
        written = await self._keep(caller, resource, draft)
        return answers.of_write(written, self._base(request), preferred)

    async def read(self, request: Request) -> Response:
        """The newest version's content."""
        id, as_json = asked.id_of(request), _wants_json(request)
        caller = caller_of(request.scope)
        stored = await self._records.read(caller, TYPE, id, action="download")
        return await self._content(request, caller, stored, as_json=as_json)

    async def vread(self, request: Request) -> Response:
        """One version's content."""
        id, version = asked.id_of(request), asked.version_in(request)
        as_json = _wants_json(request)
        caller = caller_of(request.scope)
        stored = await self._records.vread(caller, TYPE, id, version)
        return await self._content(request, caller, stored, as_json=as_json)

    async def history(self, request: Request) -> Response:
        """The versions, without their content: an upload, and perhaps a deletion."""
        id = asked.id_of(request)
        asked.without_parameters(request)
        found = await self._records.history(caller_of(request.scope), TYPE, id, count=MAX_VERSIONS)
        base = self._base(request)
        own = answers.link("self", f"{base}/{TYPE}/{id}/_history", [])
        return answers.answer(answers.history(found, base, [own]))

    async def delete(self, request: Request) -> Response:
        """Hide it; its versions remain."""
        id = asked.id_of(request)
        asked.without_parameters(request)
        refuse_headers(request, "If-Match", "If-None-Match")
        written = await self._records.delete(caller_of(request.scope), TYPE, id)
        return answers.of_write(written, self._base(request), "minimal")

    def _base(self, request: Request) -> str:
        return answers.base_of(request, self._args.sign_in.issuer)

    async def _from_json(self, request: Request) -> tuple[dict[str, Any], bytes]:
        if (window := window_of(request.scope)) is not None:
            window.release()
        without_fhir_version(request)
        body = await read_json(request.scope, request.receive, self._max_json, (FHIR_JSON,))
        return binary_resource.of_json(body)

    async def _may_write(self, caller: Caller, resource: dict[str, Any]) -> None:
        """Refuse before anything long is read or stored."""
        patient = patient_of(resource)
        if patient is None and scopes.compartment(caller.principal) != "all":
            scopes.require_permitted(caller.principal, TYPE, "c")
            message = "X-Security-Context must name the patient, as Patient/id."
            raise Forbidden(message, param="X-Security-Context", code="patient_required")
        await self._records.may_write(caller, TYPE, patient)

    async def _keep(self, caller: Caller, resource: dict[str, Any], draft: Draft) -> Any:
        """Write resource and row together; the file goes again where that certainly failed."""
        placed = False

        async def beside(connection: psycopg.AsyncConnection[Any], stored: Stored) -> None:
            nonlocal placed
            placed = True
            await self._blobs.keep(
                connection,
                draft,
                organization=caller.principal.organization,
                resource=(TYPE, stored.id, stored.version),
                patient=stored.patient,
                content_type=resource["contentType"],
            )

        parts = "\n".join((resource["contentType"], patient_of(resource) or "", draft.sha256))
        try:
            written = await self._records.create(
                caller,
                TYPE,
                resource,
                fingerprint=hashlib.sha256(parts.encode()).digest(),
                beside=beside,
                action="upload",
                details={"blob": draft.name, "size": draft.size},
            )
        except CommitUnknown:
            raise
        except DataError:
            await self._blobs.discard(draft)
            raise
        # What is replayed may be this very upload, committed by an attempt that was cut off.
        if written.replayed and not placed:
            await self._blobs.discard(draft)
        return written

    async def _content(
        self, request: Request, caller: Caller, stored: Stored, *, as_json: bool
    ) -> Response:
        if stored.resource is None:
            raise Gone("It was deleted; its history remains.")
        headers = answers.version_headers(stored)
        if version_of(request, "If-None-Match") == stored.version:
            return Response(status_code=304, headers=headers)
        ref = await self._find(caller, stored)
        if as_json:
            return await self._as_json(stored, ref, headers)
        part = content.range_of(request, ref.size)
        start, end = part or (0, ref.size)
        headers |= {
            "content-type": ref.content_type,
            "content-length": str(end - start),
            "content-disposition": f'attachment; filename="{stored.id}"',
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
            "accept-ranges": "bytes",
            "cache-control": "no-store",
        }
        if part is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{ref.size}"
        pieces = self._streams.counted(self._blobs.open(ref, start, end))
        # What cannot be opened shows here, while it can still be told.
        first = await anext(pieces, b"")
        return content.Download(first, pieces, 200 if part is None else 206, headers)

    @repeated
    async def _find(self, caller: Caller, stored: Stored) -> BlobRef:
        who = caller.principal
        async with self._database.transaction(
            deadline=caller.deadline,
            organization=who.organization,
            practitioner=who.practitioner or "",
            compartment=scopes.compartment(who),
            read_only=True,
        ) as connection:
            return await self._blobs.find(connection, TYPE, stored.id, stored.version)

    async def _as_json(self, stored: Stored, ref: BlobRef, headers: dict[str, str]) -> Response:
        if ref.size > self._max_json * 3 // 4:
            raise NotAcceptable(
                "The content is too large for JSON: ask for it without application/fhir+json.",
                param="Accept",
            )
        with self._streams.one():
            data = b"".join([piece async for piece in self._blobs.open(ref)])
        body = {**(stored.resource or {}), "data": base64.b64encode(data).decode()}
        return answers.answer(body, headers=headers)


def binary_routes(
    records: Records, blobs: Blobs, database: Database, args: RecordsArgs, *, max_json_bytes: int
) -> APIRouter:
    """The routes, to be mounted before those of the other types."""
    at = Binaries(records, blobs, database, args, max_json_bytes)
    Readers.here = True
    router = APIRouter(prefix="/fhir/Binary", tags=["fhir"])
    for path, method, handler, document in (
        ("", "POST", at.create, binary_documents.UPLOAD),
        ("/{id}", "GET", at.read, binary_documents.DOWNLOAD),
        ("/{id}", "DELETE", at.delete, binary_documents.DELETE),
        ("/{id}/_history", "GET", at.history, binary_documents.HISTORY),
        ("/{id}/_history/{version}", "GET", at.vread, binary_documents.VERSION),
    ):
        router.add_api_route(path, handler, methods=[method], **document)
    return router


def _wants_json(request: Request) -> bool:
    """Whether FHIR's JSON is asked for; the bytes themselves are the default."""
    pairs = pairs_of(request.scope["query_string"])
    if any(name != "_format" for name, _ in pairs):
        raise Unsupported("This interaction takes no parameters but _format.")
    if pairs:
        check_acceptable({}, pairs)
        return True
    accepted = request.headers.get("accept", "").lower().split(",")
    if any(each.partition(";")[0].strip() == FHIR_JSON for each in accepted):
        check_acceptable(request.headers, [])
        return True
    return False


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
