"""What `/openapi.json` says of the FHIR routes: parameters, bodies, answers and errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import Response

from serve_app.fhir.negotiation import FHIR_JSON
from serve_app.fhir.requests import FORM, SERVED

ID = "^[A-Za-z0-9.-]{1,64}$"

_MEANINGS = {
    400: "The request cannot be read or honoured; `expression` names what is wrong.",
    401: "No credentials, or ones that are not valid.",
    403: "The caller's rights do not reach so far.",
    404: "Nothing of this name, or nothing that the caller may know of.",
    405: "This interaction is not offered there; see `allow`.",
    406: "Something else than FHIR's JSON is asked for.",
    408: "The body did not arrive in time.",
    409: "What is there does not go together with this request.",
    410: "It was deleted; its history remains.",
    412: "`If-Match` names another version, or a condition matches several.",
    413: "The body is larger than `limits.max_body_mb`, or has too many entries.",
    415: "The body is of another media type.",
    422: "Against the rules of the resource, or its `Idempotency-Key` was another request's.",
    429: "Too many requests; again after `retry-after` seconds.",
    431: "Too many or too long headers.",
    500: "The server's own failure.",
    503: "The store cannot be reached now; again after `retry-after` seconds.",
    504: "The time limit passed; nothing was written.",
}
_EVERYWHERE = (400, 401, 403, 405, 406, 429, 431, 500, 503, 504)
_BODY = (408, 413, 415)

_OUTCOME = {
    "type": "object",
    "required": ["resourceType", "issue"],
    "properties": {
        "resourceType": {"const": "OperationOutcome"},
        "issue": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["severity", "code"],
                "properties": {
                    "severity": {"enum": ["fatal", "error", "warning", "information"]},
                    "code": {"type": "string"},
                    "details": {"type": "object"},
                    "diagnostics": {"type": "string"},
                    "expression": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
    },
}
_RESOURCE = {
    "type": "object",
    "required": ["resourceType"],
    "properties": {"resourceType": {"type": "string"}},
}


def _bundle(*kinds: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["resourceType", "type"],
        "properties": {
            "resourceType": {"const": "Bundle"},
            "type": {"enum": list(kinds)},
            "total": {"type": "integer", "minimum": 0},
            "link": {"type": "array", "items": {"type": "object"}},
            "entry": {"type": "array", "items": {"type": "object"}},
        },
    }


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    kept = {"type": "string", **schema}
    return {"name": name, "in": "header", "description": description, "schema": kept}


def _query(name: str, description: str, **schema: Any) -> dict[str, Any]:
    kept = {"type": "string", **schema}
    return {"name": name, "in": "query", "description": description, "schema": kept}


def _path(name: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_TYPE = _path("type", type="string", enum=list(SERVED))
_ID = _path("id", type="string", pattern=ID)
_VERSION = _path("version", type="integer", minimum=1, maximum=999999999)
_IF_NONE_MATCH = _header(
    "If-None-Match", 'A version, W/"3": 304 if it is the newest.', pattern='^(W/)?"[0-9]{1,9}"$'
)
_IF_MATCH = _header(
    "If-Match", 'A version, W/"3": 412 if another is the newest.', pattern='^(W/)?"[0-9]{1,9}"$'
)
_IF_NONE_EXIST = _header("If-None-Exist", "A search: created only if nothing matches.")
_PREFER = _header(
    "Prefer",
    "What to answer with.",
    enum=["return=minimal", "return=representation", "return=OperationOutcome"],
)
_KEY = _header(
    "Idempotency-Key",
    "The same key and request again lead to the same answer, not to a second write.",
    pattern="^[!-~]{1,255}$",
)
_COUNT = _query("_count", "Entries of a page.", type="integer", minimum=1, maximum=999999999)
_CURSOR = _query("_cursor", "From a `next` link: where to go on.")
_SEARCH_COUNT = {**_COUNT, "schema": {"type": "integer", "minimum": 0, "maximum": 999999999}}
_SEARCH = (
    _query("_id", "Ids, separated by commas."),
    _query("_lastUpdated", "A date with a prefix, ge2026-01-01 for one."),
    _query("_sort", "Parameters to sort by, with - before it for the latest first."),
    _SEARCH_COUNT,
    _query("_include", "Type:parameter of references to send along."),
    _query("_total", "Whether to count all that match.", enum=["none", "accurate"]),
    _CURSOR,
)


@dataclass(frozen=True, slots=True)
class Document:
    """One route's part of the description."""

    summary: str
    answer: dict[str, Any] | None
    parameters: tuple[dict[str, Any], ...] = ()
    errors: tuple[int, ...] = ()
    status: int = 200
    body: dict[str, Any] | None = None
    others: tuple[int, ...] = ()

    def of_route(self) -> dict[str, Any]:
        """FastAPI's arguments of a route."""
        responses: dict[int | str, Any] = {
            status: _error(status) for status in sorted({*self.errors, *_EVERYWHERE})
        }
        for status in (self.status, *self.others):
            responses[status] = _answer(None if status in (204, 304) else self.answer)
        extra: dict[str, Any] = {"parameters": list(self.parameters)}
        if self.body is not None:
            extra["requestBody"] = {"required": True, "content": self.body}
        return {
            "summary": self.summary,
            "responses": dict(sorted(responses.items())),
            "openapi_extra": extra,
            "response_class": Response,
            "status_code": self.status,
        }


def _error(status: int) -> dict[str, Any]:
    return {"description": _MEANINGS[status], "content": {FHIR_JSON: {"schema": _OUTCOME}}}


def _answer(schema: dict[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"description": "Done; without content."}
    return {"description": "Done.", "content": {FHIR_JSON: {"schema": schema}}}


_RESOURCE_BODY = {name: {"schema": _RESOURCE} for name in (FHIR_JSON, "application/json")}
_BUNDLE_BODY = {
    name: {"schema": _bundle("transaction")} for name in (FHIR_JSON, "application/json")
}
_FORM_BODY = {
    FORM: {"schema": {"type": "object", "additionalProperties": {"type": "string"}}},
}

METADATA = Document("What this server does", _RESOURCE)
READ = Document(
    "Read a resource", _RESOURCE, (_TYPE, _ID, _IF_NONE_MATCH), (404, 410), others=(304,)
)
VREAD = Document(
    *("Read one version of a resource", _RESOURCE),
    *((_TYPE, _ID, _VERSION, _IF_NONE_MATCH), (404, 410)),
    others=(304,),
)
HISTORY = Document(
    "The versions of a resource", _bundle("history"), (_TYPE, _ID, _COUNT, _CURSOR), (404,)
)
SEARCH = Document("Search resources of a type", _bundle("searchset"), (_TYPE, *_SEARCH), (404,))
POST_SEARCH = Document(
    *("Search, with the parameters in the body", _bundle("searchset"), (_TYPE,)),
    (404, *_BODY),
    body=_FORM_BODY,
)
EVERYTHING = Document(
    "All that is held of a patient", _bundle("searchset"), (_ID, _COUNT, _CURSOR), (404, 410)
)
CREATE = Document(
    *("Create a resource", _RESOURCE, (_TYPE, _IF_NONE_EXIST, _PREFER, _KEY)),
    (404, 409, 412, 422, *_BODY),
    status=201,
    body=_RESOURCE_BODY,
    others=(200,),
)
UPDATE = Document(
    *("Write the next version of a resource", _RESOURCE, (_TYPE, _ID, _IF_MATCH, _PREFER, _KEY)),
    (404, 409, 410, 412, 422, *_BODY),
    body=_RESOURCE_BODY,
)
DELETE = Document(
    *("Delete a resource; its history remains", None, (_TYPE, _ID, _KEY), (404, 409, 410, 422)),
    status=204,
)
TRANSACTION = Document(
    *("Write many resources, all or none", _bundle("transaction-response"), (_PREFER, _KEY)),
    (404, 409, 410, 412, 422, *_BODY),
    body=_BUNDLE_BODY,
)
AUDIT_READ = Document("Read an audit event", _RESOURCE, (_ID,), (404,))
AUDIT_SEARCH = Document(
    "Search audit events",
    _bundle("searchset"),
    (
        _query("date", "A date with a prefix, ge2026-01-01 for one."),
        _query("patient", "Patient/id, or the id."),
        _query("agent:identifier", "The id of an account or API key."),
        _query("action", "What was done, in one letter.", enum=list("CRUDE")),
        _query("subtype", "What was done, in this server's word."),
        _query("outcome", "How it ended.", enum=["0", "4", "8", "12"]),
        *(_COUNT, _CURSOR),
    ),
)
AUDIT_POST_SEARCH = Document(
    *("Search audit events, with the parameters in the body", _bundle("searchset"), (), _BODY),
    body=_FORM_BODY,
)
