"""Transaction Bundles: read into entries of the records, and answered entry by entry.

http://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from deployments.data.errors import Invalid, TooLarge, Unsupported
from deployments.data.records.bundle import MAX_ENTRIES
from deployments.data.records.conditions import ID
from deployments.data.records.parameters import PARAMETERS
from deployments.data.records.search import SearchPage, SearchQuery, parse
from deployments.data.records.shapes import TYPES, BundleEntry, Written
from serve_app.fhir.answers import instant, location_of, search_links, searchset
from serve_app.fhir.negotiation import Return, pairs_of

_METHODS = ("DELETE", "GET", "POST", "PUT")
_URL = re.compile(r"(?P<type>[A-Za-z]{1,64})(?:/(?P<id>[^/?]{1,64}))?(?:\?(?P<query>.*))?")
_FULL_URL = re.compile(r"urn:uuid:[0-9A-Fa-f-]{36}|https?://[^\s]{1,500}")
_VERSION = re.compile(r'(?:W/)?"([0-9]{1,9})"')
_BUNDLE = ("resourceType", "type", "entry", "id", "meta", "identifier", "timestamp", "language")
_REQUEST = ("method", "url", "ifMatch", "ifNoneExist", "id", "extension")


def entries_of(bundle: Any) -> list[BundleEntry]:
    """The entries of a transaction. Raises `Invalid` or `Unsupported`, which name the entry."""
    if not isinstance(bundle, dict) or bundle.get("resourceType") != "Bundle":
        raise Invalid("This takes a Bundle.", param="Bundle")
    if bundle.get("type") != "transaction":
        raise Unsupported("Only Bundles of type transaction are taken.", param="Bundle.type")
    if set(bundle) - set(_BUNDLE):
        raise Unsupported(
            "A transaction has type and entry, and no more that acts.", param="Bundle"
        )
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not entries:
        raise Invalid("A transaction needs entries.", param="Bundle.entry")
    if len(entries) > MAX_ENTRIES:
        raise TooLarge(f"A transaction has at most {MAX_ENTRIES} entries.", param="Bundle.entry")
    found = [_entry(entry, f"Bundle.entry[{at}]") for at, entry in enumerate(entries)]
    names = [each.full_url for each in found if each.full_url is not None]
    if len(set(names)) != len(names):
        raise Invalid("Two entries have the same fullUrl.", param="Bundle.entry.fullUrl")
    return found


def _entry(entry: Any, path: str) -> BundleEntry:
    if not isinstance(entry, dict) or not isinstance(entry.get("request"), dict):
        raise Invalid("An entry needs a request.", param=f"{path}.request")
    unknown = set(entry) - {"fullUrl", "resource", "request", "link", "id", "extension"}
    if unknown or set(entry["request"]) - set(_REQUEST):
        raise Unsupported("An entry has elements that are not offered.", param=path)
    request = entry["request"]
    method, url = request.get("method"), request.get("url")
    if method not in _METHODS:
        raise Unsupported(f"A method is one of {', '.join(_METHODS)}.", param=f"{path}.request")
    found = _URL.fullmatch(url) if isinstance(url, str) else None
    if found is None or (found["id"] is not None and not ID.fullmatch(found["id"])):
        raise Invalid(
            "A url is Type, Type/id or Type?search, relative to /fhir.", param=f"{path}.request.url"
        )
    type, id, query = found["type"], found["id"], found["query"]
    if type not in TYPES or type == "Binary":
        raise Unsupported("A type is not taken in transactions.", param=f"{path}.request.url")
    _check_form(method, id, query, path)
    return BundleEntry(
        method=method,
        type=type,
        id=id,
        full_url=_full_url(entry, method, path),
        resource=_resource(entry, method, type, path),
        if_match=_if_match(request, method, path),
        if_none_exist=_if_none_exist(request, method, type, path),
        query=_query(type, query or "", path) if method == "GET" and id is None else None,
    )


def _check_form(method: str, id: str | None, query: str | None, path: str) -> None:
    takes_id = {"POST": False, "PUT": True, "DELETE": True}.get(method, id is not None)
    if takes_id != (id is not None):
        problem = "POST takes Type; PUT and DELETE take Type/id, never a condition"
        raise Unsupported(f"{problem}.", param=f"{path}.request.url")
    if query is not None and (method != "GET" or id is not None):
        raise Unsupported("Only a search has a query.", param=f"{path}.request.url")


def _full_url(entry: dict[str, Any], method: str, path: str) -> str | None:
    text = entry.get("fullUrl")
    if text is None:
        return None
    if not isinstance(text, str) or not _FULL_URL.fullmatch(text):
        raise Invalid("A fullUrl is a urn:uuid or an http URL.", param=f"{path}.fullUrl")
    return text


def _resource(entry: dict[str, Any], method: str, type: str, path: str) -> dict[str, Any] | None:
    resource = entry.get("resource")
    if method in ("GET", "DELETE"):
        if resource is not None:
            raise Invalid(f"{method} takes no resource.", param=f"{path}.resource")
        return None
    if not isinstance(resource, dict) or resource.get("resourceType") != type:
        raise Invalid("It needs a resource of the url's type.", param=f"{path}.resource")
    return resource


def _if_match(request: dict[str, Any], method: str, path: str) -> int | None:
    text = request.get("ifMatch")
    if text is None:
        return None
    found = _VERSION.fullmatch(text) if isinstance(text, str) else None
    if found is None or method != "PUT":
        raise Invalid('ifMatch belongs to PUT, as W/"3".', param=f"{path}.request.ifMatch")
    return int(found[1])


def _if_none_exist(
    request: dict[str, Any], method: str, type: str, path: str
) -> SearchQuery | None:
    text = request.get("ifNoneExist")
    if text is None:
        return None
    if not isinstance(text, str) or method != "POST":
        raise Invalid("ifNoneExist belongs to POST.", param=f"{path}.request.ifNoneExist")
    return condition_of(type, text)


def _query(type: str, text: str, path: str) -> SearchQuery:
    if type not in PARAMETERS:
        raise Unsupported("This type is not searched.", param=f"{path}.request.url")
    return parse(type, pairs_of(text))


def condition_of(type: str, text: str) -> SearchQuery:
    """The search of a conditional create: conditions alone, and at least one."""
    pairs = pairs_of(text.removeprefix("?"))
    query = parse(type, pairs)
    if not query.criteria or len(query.criteria) != len(pairs):
        raise Invalid(
            "A condition has search parameters, and nothing about pages.", param="If-None-Exist"
        )
    return query


def response_bundle(
    entries: Sequence[BundleEntry],
    results: Sequence[Written | SearchPage],
    base: str,
    preferred: Return,
) -> dict[str, Any]:
    """The transaction-response: one entry for each of the request, in its order."""
    return {
        "resourceType": "Bundle",
        "type": "transaction-response",
        "entry": [
            _response(entry, result, base, preferred)
            for entry, result in zip(entries, results, strict=True)
        ],
    }


def _response(
    entry: BundleEntry, result: Written | SearchPage, base: str, preferred: Return
) -> dict[str, Any]:
    if isinstance(result, SearchPage):
        links = search_links(entry.query, result, base) if entry.query is not None else []
        return {"resource": searchset(result, base, links), "response": {"status": "200 OK"}}
    stored = result.stored
    response: dict[str, Any] = {
        "status": "201 Created" if result.created else "200 OK",
        "etag": f'W/"{stored.version}"',
        "lastModified": instant(stored.updated_at),
    }
    if entry.method == "DELETE":
        response["status"] = "204 No Content"
    elif entry.method != "GET":
        response["location"] = location_of(stored, base)
    whole: dict[str, Any] = {}
    if stored.resource is not None and (entry.method == "GET" or preferred == "representation"):
        whole = {"fullUrl": f"{base}/{stored.reference}", "resource": stored.resource}
    return whole | {"response": response}
