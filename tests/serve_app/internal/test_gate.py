"""Proves that `/internal/` exists for the hosts of the site and for nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response

from configs.args import Limits
from serve_app.internal.gate import HOST
from serve_app.surface import create_app
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import TOKEN, services_of

PATH = "/internal/who"


def _routes(app: FastAPI) -> None:
    router = APIRouter()

    @router.get(PATH)
    async def who(request: Request) -> Response:
        return Response(request.scope[HOST])

    app.include_router(router)


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    services = replace(
        services_of(FakeLanguage()), routes=(_routes,), callers=frozenset(("mac-b", "edge-1"))
    )
    transport = httpx.ASGITransport(create_app(services, Limits()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://cell.test") as made:
        yield made


async def test_a_host_of_the_site_is_let_in_by_its_name(client: httpx.AsyncClient) -> None:
    for host in ("mac-b", "edge-1"):
        answer = await client.get(PATH, headers={"x-medrec-host": host})
        assert (answer.status_code, answer.text) == (200, host)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", f"Bearer {TOKEN}")],
        [("x-medrec-host", "")],
        [("x-medrec-host", "mac-c")],
        [("x-medrec-host", "mac-b ,edge-1")],
        [("x-medrec-host", "MAC-B")],
        [("x-medrec-host", "mac-b"), ("x-medrec-host", "mac-b")],
        [("x-medrec-host", b"mac-b\xff")],
    ],
)
async def test_for_anybody_else_there_is_nothing(
    client: httpx.AsyncClient, headers: list[tuple[str, str | bytes]]
) -> None:
    sent = [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in headers
    ]
    for path in (PATH, "/internal/other"):
        answer = await client.get(path, headers=sent)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "not_found"


async def test_a_host_is_no_caller_of_the_other_paths(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/models", headers={"x-medrec-host": "mac-b"})
    assert answer.status_code == 401


async def test_a_cell_of_its_own_knows_no_host() -> None:
    services = replace(services_of(FakeLanguage()), routes=(_routes,))
    transport = httpx.ASGITransport(create_app(services, Limits()))
    async with httpx.AsyncClient(transport=transport, base_url="http://cell.test") as client:
        answer = await client.get(PATH, headers={"x-medrec-host": "mac-b"})
        assert answer.status_code == 404
