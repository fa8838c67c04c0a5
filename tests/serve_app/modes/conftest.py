"""An emergency cell's surface on a real PostgreSQL, without a Ray: people enrolled and not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from configs.args import ApiArgs, EmergencyArgs, OtherHosts, RecordsArgs, SignIn
from deployments.cell.state import Home
from deployments.data.accounts import signing
from deployments.data.accounts.administration import NewUser, administration
from deployments.data.accounts.enrolment import enrolment
from deployments.data.places import Places, places
from deployments.data.seal import keys
from serve_app.assembly import assemble
from serve_app.surface import create_app
from tests.deployments.data.records.conftest import Owner, owner
from tests.serve_app.fake_language import FakeLanguage

__all__ = ["owner"]

PASSWORD = "correct-horse-battery-staple"
EDGE = {"x-medrec-host": "edge-1"}


@dataclass
class Cloud:
    """One replica of an emergency cell and a client of it."""

    app: FastAPI
    client: httpx.AsyncClient
    places: Places
    args: RecordsArgs
    owner: Owner
    language: FakeLanguage
    tokens: dict[str, str] = field(default_factory=dict)

    async def activate(self, since: float | None = None, **more: Any) -> httpx.Response:
        """As an edge does it."""
        body = {"reason": "no cell has answered for 3 s", "since": since or time.time(), **more}
        return await self.client.post("/internal/emergency/activate", json=body, headers=EDGE)

    async def end(self) -> httpx.Response:
        """As an edge does it."""
        return await self.client.post("/internal/emergency/end", headers=EDGE)

    async def add(self, name: str, role: str = "physician", *, enrolled: bool = True) -> None:
        """An account, enrolled or not."""
        organization = self.args.organization
        async with administration(self.places, organization) as desk:
            await desk.add_user(
                NewUser(
                    username=name,
                    role=role,  # type: ignore[arg-type]
                    organization=organization,
                    password=PASSWORD,
                    practitioner=f"p-{name}" if role in ("physician", "nurse") else None,
                )
            )
        if enrolled:
            async with enrolment(self.places, organization, 50) as desk_of_fifty:
                await desk_of_fifty.enrol(name)

    async def sign_in(
        self, name: str, *, device: str | None = None, password: str = PASSWORD
    ) -> httpx.Response:
        """Name and password on a device; its own unless told otherwise, none for an empty name."""
        form = {"grant_type": "password", "username": name, "password": password}
        headers = {"x-medrec-device": name if device is None else device}
        if device == "":
            headers = {}
        return await self.client.post("/v1/auth/token", data=form, headers=headers)

    async def headers(self, name: str) -> dict[str, str]:
        """Of somebody signed in, on their own device."""
        if name not in self.tokens:
            answer = await self.sign_in(name)
            assert answer.status_code == 200, answer.text
            self.tokens[name] = answer.json()["access_token"]
        return {"authorization": f"Bearer {self.tokens[name]}", "x-medrec-device": name}


@pytest.fixture
def emergency_args() -> EmergencyArgs:
    return EmergencyArgs()


@pytest.fixture
async def cloud(
    dsns: tuple[str, str], owner: Owner, tmp_path: Path, emergency_args: EmergencyArgs
) -> AsyncIterator[Cloud]:
    args = RecordsArgs(
        dsn=dsns[0],
        owner_dsn=dsns[1],
        mode="emergency",
        phase="production",
        pool_connections=4,
        sign_in=SignIn(issuer="https://hospital"),
        others=OtherHosts(host="cloud", callers=["edge-1", "edge-2"]),
        emergency=emergency_args,
    )
    home = Home(tmp_path)
    at = places(args, home)
    keys.create(at.secrets)
    signing.create(at.secrets, demo=False)
    language = FakeLanguage()
    api = ApiArgs(records=args)
    app = create_app(assemble(api, home, language), api.limits)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://cloud", timeout=30) as client,
    ):
        yield Cloud(app, client, at, args, owner, language)
