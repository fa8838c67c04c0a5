"""One FHIR request on its way to the records: checked, and read into what they take."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from deployments.data.errors import Invalid, NotFound, Unsupported
from deployments.data.records.conditions import ID
from deployments.data.records.search import SearchQuery, decode_cursor, parse
from deployments.data.records.shapes import TYPES
from serve_app.body import read_bytes, read_json
from serve_app.fhir.negotiation import (
    MEDIA_TYPES,
    check_acceptable,
    pairs_of,
    without_fhir_version,
)

FORM = "application/x-www-form-urlencoded"
# Binary is content, not a resource among others: serve_app/fhir/binary.py.
SERVED = tuple(type for type in TYPES if type != "Binary")

Pairs = list[tuple[str, str]]


def parameters_of(request: Request) -> Pairs:
    """The query's parameters without `_format`, once JSON is found to be acceptable."""
    pairs = pairs_of(request.scope["query_string"])
    check_acceptable(request.headers, pairs)
    return [pair for pair in pairs if pair[0] != "_format"]


def without_parameters(request: Request) -> None:
    """Raise `Unsupported` for any parameter on an interaction that takes none."""
    if parameters_of(request):
        raise Unsupported("This interaction takes no parameters.")


def type_of(request: Request) -> str:
    """The type in the path. Raises `NotFound`, or 405 for a type with routes of its own."""
    type: str = request.path_params["type"]
    if type in ("AuditEvent", "Binary"):
        # Whatever is offered on them was matched before.
        whole = request.url.path.rstrip("/").endswith(f"/{type}")
        raise refuse({"AuditEvent": "GET", "Binary": "POST" if whole else "GET, DELETE"}[type])
    if type not in SERVED:
        raise NotFound("No such type is served here.", code="unknown_type")
    return type


def id_of(request: Request, name: str = "id") -> str:
    """The id in the path. Raises `NotFound` for what can be no id."""
    id: str = request.path_params[name]
    if not ID.fullmatch(id):
        raise NotFound("There is nothing under this id.")
    return id


def version_in(request: Request) -> int:
    """The version in the path. Raises `NotFound` for what can be none."""
    text: str = request.path_params["version"]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise NotFound("There is no such version.")
    return int(text)


def refuse(allowed: str) -> HTTPException:
    """405 with the methods that the path does take."""
    return HTTPException(405, headers={"allow": allowed})


async def resource_of(request: Request, max_bytes: int) -> dict[str, Any]:
    """The body: one JSON object."""
    without_fhir_version(request)
    body = await read_json(request.scope, request.receive, max_bytes, MEDIA_TYPES)
    if not isinstance(body, dict):
        raise Invalid("The body must be a resource: a JSON object.", param="body")
    return body


async def search_of(request: Request, type: str, max_bytes: int) -> SearchQuery:
    """The search of a GET, or of a POST with its parameters in body, address or both."""
    return parse(type, await search_pairs(request, max_bytes))


async def search_pairs(request: Request, max_bytes: int) -> Pairs:
    """The parameters of such a search."""
    pairs = pairs_of(request.scope["query_string"])
    if request.method == "POST":
        body = await read_bytes(request.scope, request.receive, max_bytes, (FORM,))
        pairs += pairs_of(body)
    check_acceptable(request.headers, pairs)
    return [pair for pair in pairs if pair[0] != "_format"]


def paging_of(
    request: Request, fingerprint: str, *, default: int, largest: int
) -> tuple[int, str | None]:
    """`_count` and `_cursor` of an interaction that takes nothing else."""
    given: dict[str, str] = {}
    for name, value in parameters_of(request):
        if name not in ("_count", "_cursor"):
            raise Unsupported("This interaction takes _count and _cursor alone.")
        if name in given:
            raise Invalid(f"{name} is given more than once.", param=name)
        given[name] = value
    count = given.get("_count", str(default))
    if not (count.isascii() and count.isdigit() and len(count) <= 9 and int(count) > 0):
        raise Invalid("_count takes a whole number from 1.", param="_count")
    cursor = given.get("_cursor")
    if cursor is not None:
        decode_cursor(fingerprint, cursor)
    return min(int(count), largest), cursor


def version_cursor(fingerprint: str, cursor: str | None) -> int | None:
    """The version that a history goes on before."""
    if cursor is None:
        return None
    values = decode_cursor(fingerprint, cursor)
    if len(values) != 1 or type(values[0]) is not int or not 0 < values[0] < 2**31:
        raise Invalid("_cursor is not one of this history.", param="_cursor")
    version: int = values[0]
    return version
