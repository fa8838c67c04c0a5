"""What `/openapi.json` says of Binary: bytes of any type beside FHIR's JSON."""

from __future__ import annotations

from typing import Any

from serve_app.fhir.documents import ID, Document
from serve_app.fhir.negotiation import FHIR_JSON

_BINARY = {
    "type": "object",
    "required": ["resourceType", "contentType"],
    "properties": {
        "resourceType": {"const": "Binary"},
        "contentType": {"type": "string"},
        "securityContext": {
            "type": "object",
            "properties": {"reference": {"type": "string", "pattern": "^Patient/"}},
        },
        "data": {"type": "string", "contentEncoding": "base64"},
    },
}
_HISTORY = {
    "type": "object",
    "required": ["resourceType", "type"],
    "properties": {"resourceType": {"const": "Bundle"}, "type": {"const": "history"}},
}
_BYTES = {"description": "The content, of its own media type.", "content": {"*/*": {"schema": {}}}}


def _header(name: str, description: str) -> dict[str, Any]:
    kept = {"type": "string"}
    return {"name": name, "in": "header", "description": description, "schema": kept}


_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "pattern": ID}}
_VERSION = {
    **_ID,
    "name": "version",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999999999},
}
_CONTEXT = _header("X-Security-Context", "The patient that it belongs to, as Patient/id.")
_KEY = _header("Idempotency-Key", "The same key and upload again lead to the same answer.")
_PREFER = _header("Prefer", "return=minimal, return=representation or return=OperationOutcome.")
_RANGE = _header("Range", "One range, bytes=0-1023 for one: 206 with that part.")
_KNOWN = _header("If-None-Match", 'A version, W/"1": 304 if it is that.')

_UPLOAD_BODY = {"*/*": {"schema": {}}, FHIR_JSON: {"schema": _BINARY}}


def _download(document: Document) -> dict[str, Any]:
    """Bytes by default, JSON on demand, and parts of the bytes."""
    route = document.of_route()
    route["responses"][200] = {
        **_BYTES,
        "content": {**_BYTES["content"], FHIR_JSON: {"schema": _BINARY}},  # type: ignore[dict-item]
    }
    route["responses"][206] = _BYTES
    route["responses"][416] = _refusal(route, "The range begins behind the content's end.")
    return route


def _refusal(route: dict[str, Any], description: str) -> dict[str, Any]:
    return {**route["responses"][400], "description": description}


def _upload() -> dict[str, Any]:
    route = Document(
        *("Upload content", _BINARY, (_CONTEXT, _PREFER, _KEY)),
        (404, 408, 409, 410, 413, 415, 422),
        status=201,
        body=_UPLOAD_BODY,
        others=(200,),
    ).of_route()
    route["responses"][413] = _refusal(route, "Larger than `records.max_upload_mb`.")
    route["responses"][507] = _refusal(route, "The disk has too little room for it.")
    return route


UPLOAD = _upload()
DOWNLOAD = _download(
    Document("Download content", _BINARY, (_ID, _RANGE, _KNOWN), (404, 410), others=(304,))
)
VERSION = _download(
    Document(
        *("Download one version", _BINARY, (_ID, _VERSION, _RANGE, _KNOWN), (404, 410)),
        others=(304,),
    )
)
HISTORY = Document("The versions of content", _HISTORY, (_ID,), (404,)).of_route()
DELETE = Document(
    *("Delete content", None, (_ID, _KEY), (404, 409, 410, 422)), status=204
).of_route()
