"""The routes of FHIR's RESTful interactions: each one step to the records and one answer back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from configs.args import RecordsArgs
from deployments.data.errors import Unsupported
from deployments.data.records import validation
from deployments.data.records.search import encode_cursor
from deployments.data.records.store import Records
from serve_app.auth.guard import caller_of
from serve_app.fhir import answers, documents
from serve_app.fhir import requests as asked
from serve_app.fhir.audit_events import AuditReader, add_audit_events
from serve_app.fhir.capabilities import capability_statement
from serve_app.fhir.negotiation import preferred_return, refuse_headers, version_of
from serve_app.fhir.transactions import condition_of, entries_of, response_bundle

Handler = Callable[[Request], Awaitable[Response]]

DEFAULT_PAGE = 20
MAX_PAGE = 100
MAX_FORM_BYTES = 64 * 1024

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
# What each path takes; anything else there is answered 405 with this as `allow`.
_ALLOWED = {
    "/{type}/_search": "POST",
    "/{type}/_history": "",
    "/{type}": "GET, POST",
    "/{type}/{id}": "GET, PUT, DELETE",
    "/{type}/{id}/_history": "GET",
    "/{type}/{id}/_history/{version}": "GET",
}


class FhirRoutes:
    """The handlers; what they share is fixed when a replica starts."""

    def __init__(self, records: Records, args: RecordsArgs, max_body_bytes: int) -> None:
        self._records = records
        self._args = args
        self._max_bytes = max_body_bytes

    def base(self, request: Request) -> str:
        """The address of /fhir as this client knows it."""
        return answers.base_of(request, self._args.sign_in.issuer)

    async def metadata(self, request: Request) -> Response:
        """What this server does, as FHIR says it."""
        if any(pair != ("mode", "full") for pair in asked.parameters_of(request)):
            raise Unsupported("The whole statement is offered alone: mode=full.", param="mode")
        return answers.answer(capability_statement(self.base(request), self._args))

    async def read(self, request: Request) -> Response:
        """The newest version of a resource."""
        type, id = asked.type_of(request), asked.id_of(request)
        asked.without_parameters(request)
        known = version_of(request, "If-None-Match")
        stored = await self._records.read(caller_of(request.scope), type, id)
        return answers.of_version(stored, known)

    async def vread(self, request: Request) -> Response:
        """One version of a resource."""
        type, id = asked.type_of(request), asked.id_of(request)
        version = asked.version_in(request)
        asked.without_parameters(request)
        known = version_of(request, "If-None-Match")
        stored = await self._records.vread(caller_of(request.scope), type, id, version)
        return answers.of_version(stored, known)

    async def history(self, request: Request) -> Response:
        """The versions of a resource, the newest first."""
        type, id = asked.type_of(request), asked.id_of(request)
        mark = f"history/{type}/{id}"
        count, cursor = asked.paging_of(request, mark, default=DEFAULT_PAGE, largest=MAX_PAGE)
        found = await self._records.history(
            *(caller_of(request.scope), type, id),
            count=count + 1,
            before_version=asked.version_cursor(mark, cursor),
        )
        base, kept = self.base(request), found[:count]
        after = encode_cursor(mark, [kept[-1].version]) if len(found) > count else None
        links = _paging_links(f"{base}/{type}/{id}/_history", count, after)
        return answers.answer(answers.history(kept, base, links))

    async def create(self, request: Request) -> Response:
        """A new resource; with `If-None-Exist` only where nothing matches."""
        type = asked.type_of(request)
        asked.without_parameters(request)
        preferred = preferred_return(request)
        condition = request.headers.get("if-none-exist")
        written = await self._records.create(
            caller_of(request.scope),
            type,
            await asked.resource_of(request, self._max_bytes),
            if_none_exist=condition_of(type, condition) if condition is not None else None,
        )
        return answers.of_write(written, self.base(request), preferred)

    async def update(self, request: Request) -> Response:
        """The next version of a resource that is there; with `If-Match` only of that version."""
        type, id = asked.type_of(request), asked.id_of(request)
        asked.without_parameters(request)
        refuse_headers(request, "If-None-Match", "If-None-Exist", "If-Modified-Since")
        if_match, preferred = version_of(request, "If-Match"), preferred_return(request)
        resource = await asked.resource_of(request, self._max_bytes)
        caller = caller_of(request.scope)
        written = await self._records.update(caller, type, id, resource, if_match=if_match)
        return answers.of_write(written, self.base(request), preferred)

    async def delete(self, request: Request) -> Response:
        """Mark a resource as deleted; its history remains."""
        type, id = asked.type_of(request), asked.id_of(request)
        asked.without_parameters(request)
        refuse_headers(request, "If-Match", "If-None-Match")
        written = await self._records.delete(caller_of(request.scope), type, id)
        return answers.of_write(written, self.base(request), "minimal")

    async def search(self, request: Request) -> Response:
        """Resources of one type that match."""
        query = await asked.search_of(request, asked.type_of(request), MAX_FORM_BYTES)
        page = await self._records.search(caller_of(request.scope), query)
        base = self.base(request)
        links = answers.search_links(query, page, base)
        return answers.answer(answers.searchset(page, base, links))

    async def everything(self, request: Request) -> Response:
        """All that is held of a patient, and the staff that it names."""
        id = asked.id_of(request)
        mark = f"everything/{id}"
        count, cursor = asked.paging_of(request, mark, default=MAX_PAGE, largest=MAX_PAGE)
        caller = caller_of(request.scope)
        page = await self._records.everything(caller, id, count=count, cursor=cursor)
        base = self.base(request)
        links = _paging_links(f"{base}/Patient/{id}/$everything", count, page.next_cursor)
        return answers.answer(answers.searchset(page, base, links))

    async def transaction(self, request: Request) -> Response:
        """Every entry of a Bundle, or none."""
        asked.without_parameters(request)
        preferred = preferred_return(request)
        entries = entries_of(await asked.resource_of(request, self._max_bytes))
        results = await self._records.transaction(caller_of(request.scope), entries)
        base = self.base(request)
        return answers.answer(response_bundle(entries, results, base, preferred))

    async def not_offered(self, request: Request) -> Response:
        """405 for FHIR's interactions that stand at a path but are not offered."""
        if "type" in request.path_params:
            asked.type_of(request)
        raise asked.refuse(_ALLOWED[request.scope["route"].path.removeprefix("/fhir")])


def _paging_links(url: str, count: int, cursor: str | None) -> list[answers.Link]:
    links = [answers.link("self", url, [("_count", str(count))])]
    if cursor is not None:
        links.append(answers.link("next", url, [("_count", str(count)), ("_cursor", cursor)]))
    return links


def fhir_routes(
    records: Records, audit: AuditReader | None, args: RecordsArgs, *, max_body_bytes: int
) -> APIRouter:
    """The routes below /fhir but for Binary's, which must be mounted before these."""
    validation.preload()
    router = APIRouter(prefix="/fhir", tags=["fhir"])
    handlers = FhirRoutes(records, args, max_body_bytes)
    if audit is not None:
        add_audit_events(router, audit, handlers.base)
    _add(
        router,
        ("/metadata", "GET", handlers.metadata, documents.METADATA),
        ("", "POST", handlers.transaction, documents.TRANSACTION),
        ("/Patient/{id}/$everything", "GET", handlers.everything, documents.EVERYTHING),
        ("/{type}/_search", "POST", handlers.search, documents.POST_SEARCH),
    )
    # Before the general paths, which would take _search and _history for ids.
    for path, allowed in _ALLOWED.items():
        others = [each for each in _METHODS if each not in allowed]
        router.add_api_route(path, handlers.not_offered, methods=others, include_in_schema=False)
    _add(
        router,
        ("/{type}", "GET", handlers.search, documents.SEARCH),
        ("/{type}", "POST", handlers.create, documents.CREATE),
        ("/{type}/{id}", "GET", handlers.read, documents.READ),
        ("/{type}/{id}", "PUT", handlers.update, documents.UPDATE),
        ("/{type}/{id}", "DELETE", handlers.delete, documents.DELETE),
        ("/{type}/{id}/_history", "GET", handlers.history, documents.HISTORY),
        ("/{type}/{id}/_history/{version}", "GET", handlers.vread, documents.VREAD),
    )
    # A base that is written with its slash is the same base.
    router.add_api_route("/", handlers.transaction, methods=["POST"], include_in_schema=False)
    return router


def _add(router: APIRouter, *routes: tuple[str, str, Handler, documents.Document]) -> None:
    for path, method, handler, document in routes:
        router.add_api_route(path, handler, methods=[method], **document.of_route())
