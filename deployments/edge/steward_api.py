"""What a steward answers to the other hosts of the site: status, orders, Prometheus text.

HTTPS with certificates of the site's hosts on both ends; the port is not for clients. Whoever has one
may look; cells and edges alone give orders.
"""

from __future__ import annotations

import ssl
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from configs.args import Strict
from deployments.edge.decision import Order, OrderKind
from deployments.edge.steward import Steward
from deployments.edge.steward_metrics import StewardCollector

_MAX_BODY = 4096
_PEER = "peer"


class OrderBody(Strict):
    """An operator's order."""

    kind: OrderKind
    cell: str = Field(default="", max_length=31)
    is_forced: bool = False


def create_app(steward: Steward) -> Starlette:
    """The application of one steward."""
    registry = CollectorRegistry()
    registry.register(StewardCollector(steward))

    async def status(request: Request) -> Response:
        return JSONResponse(steward.status())

    hosts = {host.name for host in (*steward.plan.cells, *steward.plan.edges)}

    async def orders(request: Request) -> Response:
        if request.scope.get("state", {}).get(_PEER) not in hosts:
            return _problem(403, "Orders come from cells and edges.")
        body = await request.body()
        if len(body) > _MAX_BODY:
            return _problem(413, "An order is shorter than this.")
        try:
            order = OrderBody.model_validate_json(body)
        except ValidationError as error:
            keys = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            return _problem(400, f"This is no order: {keys or 'not JSON'}")
        decision = await steward.order(Order(order.kind, order.cell, order.is_forced))
        told: dict[str, Any] = {"action": decision.action, "reason": decision.reason}
        return JSONResponse(told, 409 if decision.action == "refuse" else 200)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/orders", orders, methods=["POST"]),
            Route("/metrics", metrics),
        ]
    )


def _problem(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "title": "Order refused", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")


class _Named(H11Protocol):
    """Tells the application whose certificate the other end has, which uvicorn keeps to itself."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        subject = (transport.get_extra_info("peercert") or {}).get("subject", ())
        names = [value for part in subject for key, value in part if key == "commonName"]
        self.app_state = {**self.app_state, _PEER: names[0] if len(names) == 1 else None}


def server(steward: Steward) -> uvicorn.Server:
    """The server of the application on the host's own address; `serve()` runs it."""
    own = steward.own
    config = uvicorn.Config(
        create_app(steward),
        host=own.address,
        port=own.ports.steward,
        http=_Named,
        ssl_certfile=str(own.tls / "host.crt"),
        ssl_keyfile=str(own.tls / "host.key"),
        ssl_ca_certs=str(own.tls / "ca.crt"),
        ssl_cert_reqs=ssl.CERT_REQUIRED,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=30,
        limit_concurrency=64,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)
