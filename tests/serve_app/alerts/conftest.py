"""The alerts' surface behind uvicorn on a free port, and WebSocket clients that speak to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from configs.args import AlertsArgs, Limits, RecordsArgs
from deployments.data.alerts.alerts import Alerts
from deployments.data.alerts.feed import Feed
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.principal import Principal
from deployments.data.seal.sealer import Sealer
from serve_app.alerts.hub import Hub
from serve_app.alerts.routes import alert_routes
from serve_app.alerts.stream import Streams
from serve_app.ingress import ServeAnswers
from serve_app.services import Services
from serve_app.surface import create_app
from tests.conftest import IN_THE_CLEAR
from tests.deployments.data.alerts.conftest import Ward, house, owner, records, sealer, ward
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import audit
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fhir.conftest import NoChats, Tokens

__all__ = ("audit", "house", "owner", "records", "sealer", "ward")

SOON_S = 10.0


@pytest.fixture
def args() -> RecordsArgs:
    """Few streams, so that their bounds can be met."""
    return RecordsArgs(alerts=AlertsArgs(max_streams=5, max_streams_per_person=3))


@dataclass
class Replica:
    """One API replica, served."""

    port: int
    hub: Hub
    feed: Feed
    streams: Streams
    tokens: Tokens

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def stream(self, who: str | None = "physician", query: str = "", **more: Any) -> connect:
        """A connection to be opened by `async with`."""
        headers = {"authorization": f"Bearer {who}"} if who else {}
        at = f"ws://127.0.0.1:{self.port}/v1/alerts/stream{query}"
        return connect(at, additional_headers=headers, proxy=None, **more)

    def client(self, who: str = "physician") -> httpx.AsyncClient:
        """A client of the routes."""
        headers = {"authorization": f"Bearer {who}"}
        return httpx.AsyncClient(
            base_url=self.base_url, headers=headers, verify=IN_THE_CLEAR, trust_env=False
        )


class _Routed:
    """Answers HAProxy's check as Serve's servers do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == "/-/routes":
            await JSONResponse({"/": "api"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)


@dataclass
class Served:
    """What the replicas of a test are made of."""

    ward: Ward
    database: Database
    audit: Audit
    sealer: Sealer
    args: RecordsArgs
    tokens: Tokens = field(default_factory=Tokens)

    @asynccontextmanager
    async def replica(self, *, lasts_s: float = 600.0, port: int = 0) -> AsyncIterator[Replica]:
        """Another replica on the same database; a feed and a hub of its own."""
        alerts = Alerts(self.database, self.sealer, self.audit, self.args)
        rules = self.args.alerts
        hub = Hub(max_streams=rules.max_streams, max_per_person=rules.max_streams_per_person)
        feed = Feed(self.database, self.sealer, hub)
        streams = Streams(alerts, feed, hub, self.tokens, lasts_s=lasts_s, deadline_s=5.0)
        services = Services(
            language=FakeLanguage(),
            authority=self.tokens,
            audit=self.audit,
            duties=NoChats(),
            routes=(lambda app: app.include_router(alert_routes(alerts, streams)),),
            parts=(feed, hub),
            deadline_s=5.0,
        )
        app = _Routed(ServeAnswers(create_app(services, Limits(), behind_serve=True)))
        config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Replica(port, hub, feed, streams, self.tokens)
        finally:
            server.should_exit = True
            await asyncio.wait_for(serving, SOON_S)

    def allow_database(self, allowed: bool) -> None:
        """Not `allowed`: connections end and new ones are refused, as when a primary dies."""
        name = psycopg.conninfo.conninfo_to_dict(self.ward.owner.dsn)["dbname"]
        server = psycopg.conninfo.make_conninfo(self.ward.owner.dsn, dbname="postgres")
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {allowed}')
            if not allowed:
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [name],
                )


@pytest.fixture
def served(
    ward: Ward, database: Database, audit: Audit, sealer: Sealer, args: RecordsArgs
) -> Served:
    found = Served(ward, database, audit, sealer, args)
    machine = people.caller("service", grants=frozenset(("system/*.cruds", "alerts")))
    principals: dict[str, Principal] = {
        "physician": ward.physician.principal,
        "colleague": ward.colleague.principal,
        "nurse": ward.nurse.principal,
        "screen": machine.principal,
        "analyst": people.caller("analyst").principal,
    }
    found.tokens.principals = principals
    return found


@pytest.fixture
async def replica(served: Served) -> AsyncIterator[Replica]:
    async with served.replica() as made:
        yield made


async def next_of(stream: ClientConnection, type: str | None = None) -> dict[str, Any]:
    """The next message, or the next of a type."""
    async with asyncio.timeout(SOON_S):
        while True:
            message: dict[str, Any] = json.loads(await stream.recv())
            if type in (None, message["type"]):
                return message


async def eventually(happened: Callable[[], bool]) -> None:
    """Wait until it has happened, ten seconds at most."""
    for _ in range(int(SOON_S / 0.02)):
        if happened():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it has not happened")


async def closed(stream: ClientConnection) -> tuple[int | None, str | None]:
    """Read to the end; code and reason of the server's close."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(SOON_S):
            while True:
                await stream.recv()
    return stream.close_code, stream.close_reason


async def begun(stream: ClientConnection) -> tuple[dict[str, Any], dict[str, Any]]:
    """`hello` and `open`, with nothing between them."""
    hello, opened = await next_of(stream), await next_of(stream)
    assert (hello["type"], opened["type"]) == ("hello", "open")
    return hello, opened
