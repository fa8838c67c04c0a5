"""A transaction's plan: what is refused before anything is written, ids, links and the order.

http://hl7.org/fhir/R4/http.html#trules: deletions, then creations, updates, reads; all or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deployments.data import scopes
from deployments.data.errors import Invalid, TooLarge, Unsupported
from deployments.data.principal import Principal
from deployments.data.records import references
from deployments.data.records.shapes import TYPES, BundleEntry

MAX_ENTRIES = 200
_ORDER = {"DELETE": 0, "POST": 1, "PUT": 2, "GET": 3}


def check(principal: Principal, entries: Sequence[BundleEntry]) -> None:
    """Raise what can be refused by looking at the entries alone, scopes first."""
    if len(entries) > MAX_ENTRIES:
        message = f"A transaction takes at most {MAX_ENTRIES} entries."
        raise TooLarge(message, param="Bundle.entry", code="too_many_entries")
    named: set[tuple[str, str]] = set()
    urls: set[str] = set()
    for position, entry in enumerate(entries):
        _check_rights(principal, entry)
        where = f"Bundle.entry[{position}]"
        if entry.type == "Binary" and entry.method in ("POST", "PUT"):
            raise Unsupported("Content is uploaded to /fhir/Binary.", param=where)
        if entry.method in ("POST", "PUT") and entry.resource is None:
            raise Invalid("This entry needs a resource.", param=f"{where}.resource")
        if entry.method in ("PUT", "DELETE"):
            if entry.id is None:
                raise Invalid("This entry needs an id.", param=f"{where}.request.url")
            if (entry.type, entry.id) in named:
                message = "Two entries of the transaction change the same resource."
                raise Invalid(message, param=where, code="duplicate_entry")
            named.add((entry.type, entry.id))
        if entry.full_url is not None and entry.method != "GET":
            if entry.full_url in urls:
                message = "Two entries of the transaction have the same fullUrl."
                raise Invalid(message, param=f"{where}.fullUrl", code="duplicate_entry")
            urls.add(entry.full_url)


def _check_rights(principal: Principal, entry: BundleEntry) -> None:
    if entry.type not in TYPES:
        raise Unsupported("Resources of this type are not held here.", param="Bundle.entry")
    letters: dict[str, scopes.Letter] = {"DELETE": "d", "POST": "c", "PUT": "u", "GET": "r"}
    letter = letters[entry.method]
    if entry.method == "GET" and entry.id is None:
        letter = "s"
    scopes.require_permitted(principal, entry.type, letter)
    if entry.if_none_exist is not None:
        scopes.require_permitted(principal, entry.type, "s")


def ordered(entries: Sequence[BundleEntry]) -> list[int]:
    """The positions in the order of work.

    Patients come first among creations and last among deletions, for what lies in their
    compartments; changes go by id, so that two transactions never wait for each other in a ring.
    """

    def key(position: int) -> tuple[int, bool, str, str, int]:
        entry = entries[position]
        patient = entry.type == "Patient"
        late = patient if entry.method == "DELETE" else not patient
        return _ORDER[entry.method], late, entry.type, entry.id or "", position

    return sorted(range(len(entries)), key=key)


def linked(resource: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The resource with links to other entries made references; raises for one that leads nowhere."""
    found: dict[str, Any] = references.rewritten(resource, names)
    references.refuse_unresolved(found)
    return found
