"""Answers in FHIR's form: one version of a resource, what a write led to, and Bundles of many."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response

from deployments.data.errors import Gone
from deployments.data.records.search import SearchPage, SearchQuery
from deployments.data.records.shapes import Stored, Written
from serve_app.fhir.negotiation import FHIR_JSON, Return

Link = tuple[str, str]

_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def base_of(request: Request, configured: str | None) -> str:
    """The address of /fhir as the client knows it: configured, or by its own Host header."""
    if configured is not None:
        return f"{configured.rstrip('/')}/fhir"
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        return "/fhir"
    return f"{request.scope['scheme']}://{host}/fhir"


def answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A resource as an answer."""
    kept = {"cache-control": "no-store", **(headers or {})}
    return Response(orjson.dumps(body), status, kept, FHIR_JSON)


def version_headers(stored: Stored) -> dict[str, str]:
    """`ETag` and `Last-Modified` of one version."""
    modified = stored.updated_at.astimezone(UTC).replace(microsecond=0)
    return {
        "etag": f'W/"{stored.version}"',
        "last-modified": format_datetime(modified, usegmt=True),
    }


def of_version(stored: Stored, known: int | None) -> Response:
    """One version as it was asked for; 304 where the client has it. Raises `Gone`."""
    if stored.resource is None:
        raise Gone("It was deleted; its history remains.")
    headers = version_headers(stored)
    if known == stored.version:
        return Response(status_code=304, headers=headers)
    return answer(stored.resource, headers=headers)


def of_write(written: Written, base: str, preferred: Return) -> Response:
    """What a create, update or delete led to."""
    stored = written.stored
    headers = version_headers(stored)
    if written.replayed:
        headers["idempotent-replayed"] = "true"
    if stored.resource is None:
        return Response(status_code=204, headers=headers)
    headers["location"] = location_of(stored, base)
    status = 201 if written.created else 200
    if preferred == "minimal":
        return Response(status_code=status, headers=headers)
    if preferred == "OperationOutcome":
        issue = {"severity": "information", "code": "informational", "diagnostics": "Done."}
        return answer({"resourceType": "OperationOutcome", "issue": [issue]}, status, headers)
    return answer(stored.resource, status, headers)


def location_of(stored: Stored, base: str) -> str:
    """The address of one version."""
    return f"{base}/{stored.reference}/_history/{stored.version}"


def searchset(page: SearchPage, base: str, links: Sequence[Link]) -> dict[str, Any]:
    """A Bundle of what a search found, and of what it was asked to include."""
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if page.total is not None:
        bundle["total"] = page.total
    bundle["link"] = _links(links)
    found = [*_entries(page.entries, base, "match"), *_entries(page.includes, base, "include")]
    if found:
        bundle["entry"] = found
    return bundle


def _entries(found: Iterable[Stored], base: str, mode: str) -> Iterable[dict[str, Any]]:
    for each in found:
        yield {
            "fullUrl": f"{base}/{each.reference}",
            "resource": each.resource,
            "search": {"mode": mode},
        }


def search_links(query: SearchQuery, page: SearchPage, base: str) -> list[Link]:
    """`self`, which shows what was honoured, and `next` where there is more."""
    url = f"{base}/{query.type}"
    links = [link("self", url, query.honoured)]
    if page.next_cursor is not None:
        links.append(link("next", url, (*query.honoured, ("_cursor", page.next_cursor))))
    return links


def history(versions: Sequence[Stored], base: str, links: Sequence[Link]) -> dict[str, Any]:
    """A Bundle of versions, the newest first; deletions have no resource."""
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "history", "link": _links(links)}
    if versions:
        bundle["entry"] = [_version_entry(each, base) for each in versions]
    return bundle


def _version_entry(stored: Stored, base: str) -> dict[str, Any]:
    url = stored.type if stored.method == "POST" else stored.reference
    statuses = {"POST": "201 Created", "PUT": "200 OK", "DELETE": "204 No Content"}
    entry: dict[str, Any] = {"fullUrl": f"{base}/{stored.reference}"}
    if stored.resource is not None:
        entry["resource"] = stored.resource
    entry["request"] = {"method": stored.method, "url": url}
    entry["response"] = {
        "status": statuses[stored.method],
        "etag": f'W/"{stored.version}"',
        "lastModified": instant(stored.updated_at),
    }
    return entry


def instant(moment: datetime) -> str:
    """FHIR's instant, in UTC."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def link(relation: str, url: str, parameters: Sequence[tuple[str, str]]) -> Link:
    """One link of a Bundle."""
    query = urlencode(parameters, safe=":|,/$")
    return relation, f"{url}?{query}" if query else url


def _links(links: Sequence[Link]) -> list[dict[str, str]]:
    return [{"relation": relation, "url": url} for relation, url in links]
