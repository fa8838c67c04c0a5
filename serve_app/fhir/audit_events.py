"""AuditEvent, read only: FHIR's search parameters turned into what the audit's reader takes.

http://hl7.org/fhir/R4/auditevent.html#search
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

from fastapi import APIRouter, Request, Response

from deployments.data.audit.reader import AuditPage, AuditSearch
from deployments.data.errors import Invalid, Unsupported
from deployments.data.principal import Caller
from deployments.data.records.dates import range_of
from serve_app.auth.guard import caller_of
from serve_app.fhir import answers, documents
from serve_app.fhir import requests as asked

DEFAULT_COUNT = 20
MAX_COUNT = 200
MAX_FORM_BYTES = 64 * 1024
# Name, FHIR's type, and what is particular about it.
PARAMETERS = (
    ("date", "date", "Prefixes eq, gt, lt, ge, le, sa, eb; repeated for a span."),
    ("patient", "reference", ""),
    ("agent", "reference", "Only agent:identifier, the id of an account or API key."),
    ("action", "token", "C, R, U, D or E; not together with subtype."),
    ("subtype", "token", "Codes of urn:medical-record:audit-action."),
    ("outcome", "token", ""),
)

_PATIENT = re.compile(r"(?:Patient/)?([A-Za-z0-9.-]{1,64})")
_IDENTIFIER = re.compile(r"(?:(?:urn:medical-record:[a-z]+)?\|)?([A-Za-z0-9._@-]{1,128})")
_SUBTYPE = re.compile(r"(?:urn:medical-record:audit-action\|)?([a-z-]{1,64})")
_ACTION = re.compile(r"(?:http://hl7\.org/fhir/audit-event-action\|)?([CRUDE])")
_OUTCOME = re.compile(r"(?:http://hl7\.org/fhir/audit-event-outcome\|)?(0|4|8|12)")
_DATE = re.compile(r"(eq|ge|gt|le|lt|sa|eb)?([0-9].*)", re.DOTALL)
_FIELDS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "patient": ("patient", _PATIENT),
    "agent:identifier": ("agent", _IDENTIFIER),
    "subtype": ("action", _SUBTYPE),
    "action": ("action", _ACTION),
    "outcome": ("outcome", _OUTCOME),
}


class AuditReader(Protocol):
    """Reads the audit; see deployments/data/audit/reader.py."""

    async def read(self, caller: Caller, id: str) -> dict[str, Any]:
        """One AuditEvent."""

    async def search(
        self, caller: Caller, wanted: AuditSearch, *, count: int = ..., cursor: str | None = None
    ) -> AuditPage:
        """A page of AuditEvents, the newest first."""


def add_audit_events(
    router: APIRouter, audit: AuditReader, base_of: Callable[[Request], str]
) -> None:
    """The routes of AuditEvent, before those of types in general."""

    async def read(request: Request) -> Response:
        id = asked.id_of(request)
        asked.without_parameters(request)
        return answers.answer(await audit.read(caller_of(request.scope), id))

    async def search(request: Request) -> Response:
        pairs = await asked.search_pairs(request, MAX_FORM_BYTES)
        wanted, count, cursor = search_of(pairs)
        caller = caller_of(request.scope)
        page = await audit.search(caller, wanted, count=count, cursor=cursor)
        kept = [pair for pair in pairs if pair[0] not in ("_count", "_cursor")]
        return answers.answer(_bundle(page, base_of(request), [*kept, ("_count", str(count))]))

    for path, method, handler, document in (
        ("/AuditEvent/_search", "POST", search, documents.AUDIT_POST_SEARCH),
        ("/AuditEvent", "GET", search, documents.AUDIT_SEARCH),
        ("/AuditEvent/{id}", "GET", read, documents.AUDIT_READ),
    ):
        router.add_api_route(path, handler, methods=[method], **document.of_route())


def search_of(pairs: asked.Pairs) -> tuple[AuditSearch, int, str | None]:
    """The search, the size of a page and the cursor. Raises `Unsupported` or `Invalid`."""
    found: dict[str, Any] = {}
    count, cursor = DEFAULT_COUNT, None
    for name, value in pairs:
        if name == "date":
            _narrow(found, value)
        elif name in _FIELDS:
            field, pattern = _FIELDS[name]
            matched = pattern.fullmatch(value)
            if matched is None:
                raise Invalid(f"{name} does not take this value.", param=name)
            if field in found:
                raise Unsupported(f"{name} stands beside another of its kind.", param=name)
            found[field] = matched[1]
        elif name == "_count":
            count = _count(value)
        elif name == "_cursor" and cursor is None:
            cursor = value
        else:
            offered = ", ".join(name for name, _, _ in PARAMETERS)
            raise Unsupported(f"AuditEvent is searched by {offered}, _count.")
    return AuditSearch(**found), count, cursor


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise Invalid("_count takes a whole number from 1.", param="_count")
    return min(int(text), MAX_COUNT)


def _narrow(found: dict[str, datetime], text: str) -> None:
    matched = _DATE.fullmatch(text)
    if matched is None:
        raise Invalid("date takes dates, with a prefix of eq ge gt le lt sa eb.", param="date")
    try:
        start, end = range_of(matched[2])
    except ValueError:
        raise Invalid("date holds no date as FHIR writes it.", param="date") from None
    prefix = matched[1] or "eq"
    if prefix in ("eq", "ge", "gt", "sa"):
        since = end if prefix in ("gt", "sa") else start
        found["since"] = max(found.get("since", since), since)
    if prefix in ("eq", "le", "lt", "eb"):
        until = start if prefix in ("lt", "eb") else end
        found["until"] = min(found.get("until", until), until)


def _bundle(page: AuditPage, base: str, honoured: asked.Pairs) -> dict[str, Any]:
    url = f"{base}/AuditEvent"
    links = [answers.link("self", url, honoured)]
    if page.next_cursor is not None:
        links.append(answers.link("next", url, [*honoured, ("_cursor", page.next_cursor)]))
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links]
    if page.events:
        bundle["entry"] = [
            {
                "fullUrl": f"{base}/AuditEvent/{event['id']}",
                "resource": event,
                "search": {"mode": "match"},
            }
            for event in page.events
        ]
    return bundle
