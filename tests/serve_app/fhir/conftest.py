"""The real application over a real PostgreSQL; only who asks is settled by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from fhirpy import AsyncFHIRClient

from configs.args import Limits, RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.audit.reader import AuditReader
from deployments.data.database import Database
from deployments.data.errors import Unauthenticated
from deployments.data.interactions.interaction import Answered, Asked
from deployments.data.principal import Caller, Principal
from deployments.data.records.store import Records
from models.generation import Priority
from serve_app.fhir.routes import fhir_routes
from serve_app.services import Services
from serve_app.surface import create_app
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import audit, records, sealer
from tests.serve_app.fake_language import FakeLanguage

__all__ = ("audit", "records", "sealer")

MAX_BODY_BYTES = 200_000


class Tokens:
    """Credentials by name: `machine`, `physician`, `auditor`, `analyst`, `stranger`."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal] = {}

    async def verify(self, token: str) -> Principal:
        if token not in self.principals:
            raise Unauthenticated("This token is not known.")
        return self.principals[token]


class NoChats:
    """Nobody chats in these tests."""

    def permit(self, caller: Caller, priority: Priority) -> None:
        raise AssertionError

    def check_switch(self, caller: Caller) -> None:
        raise AssertionError

    async def begin(self, caller: Caller, asked: Asked) -> None:
        raise AssertionError

    async def end(self, caller: Caller, asked: Asked, answered: Answered) -> None:
        raise AssertionError


@dataclass
class Site:
    """The application, its people, and clients that speak as one of them."""

    app: FastAPI
    tokens: Tokens
    physician_id: str

    def client(self, name: str | None = "physician") -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {name}"} if name else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(
            transport=transport, base_url="http://records.test/fhir", headers=headers
        )


@pytest.fixture
async def site(database: Database, records: Records, audit: Audit) -> Site:
    machine = people.caller("service")
    made = await records.create(machine, "Practitioner", people.practitioner())
    id = made.stored.id
    tokens = Tokens()
    tokens.principals = {
        "machine": machine.principal,
        "physician": people.caller(practitioner=id).principal,
        "stranger": people.caller(practitioner="nobody").principal,
        "auditor": people.caller("auditor").principal,
        "analyst": people.caller("analyst").principal,
    }
    router = fhir_routes(
        records, AuditReader(database, audit), RecordsArgs(), max_body_bytes=MAX_BODY_BYTES
    )
    services = Services(
        language=FakeLanguage(),
        authority=tokens,
        audit=audit,
        duties=NoChats(),
        routes=(lambda app: app.include_router(router),),
    )
    return Site(create_app(services, Limits()), tokens, id)


@pytest.fixture
async def physician(site: Site) -> AsyncIterator[httpx.AsyncClient]:
    async with site.client() as client:
        yield client


@pytest.fixture
async def fhirpy(site: Site) -> AsyncIterator[AsyncFHIRClient]:
    """A FHIR client of other people's, over a socket, as the physician."""
    config = uvicorn.Config(site.app, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield AsyncFHIRClient(f"http://127.0.0.1:{port}/fhir", authorization="Bearer physician")
    server.should_exit = True
    await serving
