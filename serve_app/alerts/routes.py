"""`/v1/alerts`: raise, list, read, acknowledge and resolve alerts; their stream stands beside."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response, WebSocket
from pydantic import BaseModel

from deployments.data.alerts.alerts import MAX_COUNT, Alerts
from deployments.data.errors import Invalid
from serve_app import paging
from serve_app.alerts.shapes import AlertList, AlertRequest, AlertShown, shown
from serve_app.alerts.stream import PROTOCOL, Streams
from serve_app.auth import bodies, described
from serve_app.auth.guard import caller_of
from serve_app.errors import UpgradeRequired


def alert_routes(alerts: Alerts, streams: Streams) -> APIRouter:
    """The routes: to be mounted without a prefix, behind the guard."""
    router = APIRouter(tags=["alerts"])
    _add_raise(router, alerts)
    _add_list(router, alerts)
    # Before the route of one alert, whose id `stream` would be.
    _add_stream(router, streams)
    _add_one(router, alerts)
    _add_acts(router, alerts)
    return router


def _add_raise(router: APIRouter, alerts: Alerts) -> None:
    @router.post(
        "/v1/alerts",
        summary="Raise an alert",
        status_code=201,
        response_model=AlertShown,
        responses=_problems(403, 404, 409, 422, body=True),
        openapi_extra=_with_body(AlertRequest, _IDEMPOTENCY_KEY),
    )
    async def raise_alert(request: Request) -> Response:
        body = await bodies.read(request, AlertRequest)
        alert, _ = await alerts.raise_alert(
            caller_of(request.scope),
            severity=body.severity,
            code=body.kind,
            to=body.to.to,
            patient=body.patient.removeprefix("Patient/") if body.patient else None,
            text=body.text,
        )
        return bodies.answer(shown(alert), 201)


def _add_list(router: APIRouter, alerts: Alerts) -> None:
    @router.get(
        "/v1/alerts",
        summary="The caller's alerts, newest first",
        response_model=AlertList,
        responses=_problems(400, 403),
        openapi_extra={"parameters": _LIST_PARAMETERS},
    )
    async def list_alerts(request: Request) -> Response:
        every, page = _asked(request)
        found, further = await alerts.listed(
            caller_of(request.scope), every=every, count=page.count, cursor=page.cursor
        )
        return bodies.answer(AlertList(alerts=[shown(each) for each in found], next=further))


def _add_stream(router: APIRouter, streams: Streams) -> None:
    @router.get(
        "/v1/alerts/stream",
        summary="Alerts as they happen, over WebSocket",
        description=_STREAM,
        status_code=101,
        response_class=Response,
        responses={
            101: {"description": "The connection is a WebSocket from now on."},
            426: _upgrade(),
            **_problems(400, 403, 429),
        },
        openapi_extra={"parameters": [_AFTER]},
    )
    async def without_upgrade(request: Request) -> Response:
        caller_of(request.scope)
        raise UpgradeRequired("This is a WebSocket: connect with `upgrade: websocket`.")

    @router.websocket("/v1/alerts/stream")
    async def stream(websocket: WebSocket) -> None:
        await streams.serve(websocket)


def _add_one(router: APIRouter, alerts: Alerts) -> None:
    @router.get(
        "/v1/alerts/{id}",
        summary="One alert",
        response_model=AlertShown,
        responses=_problems(403, 404),
        openapi_extra={"parameters": [_ID]},
    )
    async def one(request: Request) -> Response:
        alert = await alerts.read(caller_of(request.scope), request.path_params["id"])
        return bodies.answer(shown(alert))


def _add_acts(router: APIRouter, alerts: Alerts) -> None:
    @router.post(
        "/v1/alerts/{id}/acknowledge",
        summary="Take an alert on; nobody else is called any more",
        response_model=AlertShown,
        responses=_problems(403, 404, 409),
        openapi_extra={"parameters": [_ID]},
    )
    async def acknowledge(request: Request) -> Response:
        alert = await alerts.acknowledge(caller_of(request.scope), request.path_params["id"])
        return bodies.answer(shown(alert))

    @router.post(
        "/v1/alerts/{id}/resolve",
        summary="Close an alert",
        response_model=AlertShown,
        responses=_problems(403, 404, 409),
        openapi_extra={"parameters": [_ID]},
    )
    async def resolve(request: Request) -> Response:
        alert = await alerts.resolve(caller_of(request.scope), request.path_params["id"])
        return bodies.answer(shown(alert))


def _asked(request: Request) -> tuple[bool, paging.Asked]:
    """Whether all are wanted or those that are open, and the page."""
    page = paging.asked(request, "state", most=MAX_COUNT)
    state = page.others.get("state", "open")
    if state not in ("open", "all"):
        raise Invalid("state takes open or all.", param="state")
    return state == "all", page


_STREAM = (
    f"A WebSocket (docs/alerts.md). Browsers offer the subprotocols `{PROTOCOL}` and "
    "`bearer.<token>`; others send the header `authorization`. Whatever is refused before the "
    "connection is a WebSocket is refused by an HTTP status."
)
_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_AFTER = {
    "name": "after",
    "in": "query",
    "required": False,
    "description": "The last `cursor` that the client has seen: what happened since is told first.",
    "schema": {"type": "string"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again: the same alert, not a second one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_LIST_PARAMETERS = [
    {
        "name": "state",
        "in": "query",
        "required": False,
        "schema": {"type": "string", "enum": ["open", "all"], "default": "open"},
    },
    *paging.parameters(MAX_COUNT),
]
_UNPROCESSABLE = "Nobody can be called so, or the Idempotency-Key was used for another request."


def _with_body(shape: type[BaseModel], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {**described.json_body(shape), "parameters": list(parameters)}


def _problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, as problem+json."""
    found = described.problems(*(each for each in statuses if each != 422), body=body)
    if 422 in statuses:
        found[422] = {"description": _UNPROCESSABLE, "content": found[500]["content"]}
    return found


def _upgrade() -> dict[str, Any]:
    return {
        "description": "Asked without an upgrade to a WebSocket.",
        "content": described.problems()[500]["content"],
    }
