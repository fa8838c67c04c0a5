"""A surface of sign-in alone: real database, real keys, real middlewares; only the network is not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from configs.args import SignIn
from deployments.data.accounts import signing
from deployments.data.accounts.administration import Administration, NewUser, administration
from deployments.data.accounts.wiring import Accounts, open_accounts
from deployments.data.audit.entry import AuditEntry
from deployments.data.database import Database
from deployments.data.places import Places
from deployments.data.principal import Role
from serve_app.auth.guard import SignedIn, caller_of
from serve_app.auth.routes import auth_routes
from serve_app.denials import Denials
from serve_app.middleware import Errors
from serve_app.trace import RequestIds

ISSUER = "http://127.0.0.1:8000"
PASSWORD = "correct horse battery staple"


@dataclass
class KeptJournal:
    """The audit's journal, at its protocol: what was put on record, in order."""

    entries: list[AuditEntry] = field(default_factory=list)

    async def journal(self, entry: AuditEntry) -> None:
        entry.body()
        self.entries.append(entry)

    def told(self) -> list[tuple[str, str]]:
        """Action and outcome of every entry."""
        return [(entry.action, entry.outcome) for entry in self.entries]


@dataclass
class Surface:
    """What a test speaks to."""

    client: httpx.AsyncClient
    accounts: Accounts
    journal: KeptJournal
    desk: Administration
    database: Database
    owner: Database

    async def add(self, username: str, role: Role = "physician", **more: Any) -> str:
        """Make an account; its password is `PASSWORD`."""
        values = {"organization": "hospital", "password": PASSWORD, "practitioner": "practitioner"}
        return await self.desk.add_user(NewUser(username=username, role=role, **(values | more)))

    async def sign_in(
        self, username: str, password: str = PASSWORD, address: str = "10.0.0.1", **more: str
    ) -> httpx.Response:
        """The password form."""
        form = {"grant_type": "password", "username": username, "password": password}
        headers = {"x-forwarded-for": address}
        return await self.client.post("/v1/auth/token", data=form | more, headers=headers)

    async def signed_in(self, username: str, **more: str) -> dict[str, str]:
        """Headers of a person who has signed in."""
        answer = await self.sign_in(username, **more)
        assert answer.status_code == 200, answer.text
        return bearer(answer.json()["access_token"])

    async def age_sign_in(self, token: str, seconds: int) -> dict[str, str]:
        """Headers of a token as it would be `seconds` after its sign-in."""
        who = await self.accounts.authority.verify(token)
        older = replace(who, authenticated_at=time.time() - seconds)
        issued = self.accounts.tokens.issue(older, ends_at=time.time() + 600)
        return bearer(issued.token)


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token or key."""
    return {"authorization": f"Bearer {token}"}


def surface_app(accounts: Accounts, journal: KeptJournal) -> FastAPI:
    """Sign-in's routes and one of a chat, behind the real middlewares."""
    app = FastAPI(openapi_url=None)
    app.include_router(auth_routes(accounts))

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, str]:
        who = caller_of(request.scope)
        return {"id": who.principal.id, "address": who.address, "device": who.device}

    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    app.add_middleware(SignedIn, authority=accounts.authority, deadline_s=10.0)
    app.add_middleware(Errors, denials=Denials(journal))
    app.add_middleware(RequestIds)
    return app


@pytest.fixture
def settings() -> SignIn:
    """A test module may say otherwise."""
    return SignIn()


@pytest.fixture
def at(dsns: tuple[str, str], tmp_path: Path) -> Places:
    """The places of a fresh installation."""
    folders = [tmp_path / name for name in ("secrets", "blobs", "journal")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    return Places(dsns[0], dsns[1], *folders)


@pytest.fixture
async def surface(at: Places, database: Database, settings: SignIn) -> AsyncIterator[Surface]:
    """The surface, open."""
    signing.create(at.secrets, demo=False)
    journal = KeptJournal()
    accounts = open_accounts(settings, ISSUER, at.secrets, database, journal, demo=False)
    owner = Database(at.owner_dsn, connections=2)
    await owner.open()
    transport = httpx.ASGITransport(surface_app(accounts, journal), client=("127.0.0.1", 5000))
    try:
        async with (
            administration(at, "hospital") as desk,
            httpx.AsyncClient(transport=transport, base_url=ISSUER) as client,
        ):
            yield Surface(client, accounts, journal, desk, database, owner)
    finally:
        await accounts.close()
        await owner.close()
