"""The other cell gets what a manifest names, in ranges if it likes; nobody gets anything else."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from configs.args import Limits
from deployments.site.models.manifest import parse
from deployments.site.models.store import Model, Store
from deployments.site.models.switching import switch
from serve_app.fhir import content
from serve_app.internal.models import model_routes
from serve_app.surface import create_app
from tests.deployments.site.models import stores
from tests.deployments.site.models.stores import WEIGHTS, served, staged
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import services_of

HOST = {"x-medrec-host": "mac-b"}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model with two versions, the first one current."""
    found, [one, _] = staged(tmp_path, "one", "two")
    switch(found, one)
    return found


@pytest.fixture
async def client(model: Model) -> AsyncIterator[httpx.AsyncClient]:
    """Another host's way to the surface."""

    def routes(app: FastAPI) -> None:
        app.include_router(model_routes(Store(model.folder.parent)))

    services = replace(services_of(FakeLanguage()), routes=(routes,), callers=frozenset(("mac-b",)))
    transport = httpx.ASGITransport(create_app(services, Limits()), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://cell.test") as made:
        yield made


def base(model: Model, version: str = "current") -> str:
    return f"/internal/models/{model.name}/{version}"


async def test_a_host_gets_every_version_and_by_name_the_current_one(
    client: httpx.AsyncClient, model: Model
) -> None:
    for version in model.versions():
        answer = await client.get(f"{base(model, version)}/manifest", headers=HOST)
        assert parse(answer.content, "it").version == version
    answer = await client.get(f"{base(model)}/manifest", headers=HOST)
    assert parse(answer.content, "it").version == model.current
    for entry in parse(answer.content, "it").files:
        got = await client.get(f"{base(model)}/files/{entry.path}", headers=HOST)
        assert got.content == (model.folder / "current" / entry.path).read_bytes()
        assert got.headers["content-length"] == str(entry.size)


async def test_a_file_is_given_from_where_the_reader_has_come_to(
    client: httpx.AsyncClient, model: Model
) -> None:
    whole = (model.folder / "current" / WEIGHTS).read_bytes()
    path = f"{base(model)}/files/{WEIGHTS}"
    answer = await client.get(path, headers={**HOST, "range": "bytes=10-"})
    assert (answer.status_code, answer.content) == (206, whole[10:])
    assert answer.headers["content-range"] == f"bytes 10-{len(whole) - 1}/{len(whole)}"
    answer = await client.get(path, headers={**HOST, "range": f"bytes={len(whole)}-"})
    assert answer.status_code == 416


TRAVERSALS = (
    *("../../../../secret", "..%2f..%2f..%2f..%2fsecret", "%2e%2e/%2e%2e/%2e%2e/secret"),
    *("extra/../../../../../secret", "/etc/passwd", "%2fetc%2fpasswd", "extra", "extra/"),
    *(".hidden", "stranger", "manifest.json", "", "README.md/", "./README.md", "%00", "%ff"),
    *("extra/..%2f.hidden", "..\\secret", "README.md%00.txt"),
)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[http.client.HTTPConnection]:
    """A connection to a store's surface that sends every path as it stands, `..` included."""
    root = tmp_path_factory.mktemp("raw")
    model, [one] = staged(root, "one")
    switch(model, one)
    for secret in (
        root / "secret",
        model.path_of(one) / ".hidden",
        model.path_of(one) / "stranger",
    ):
        secret.write_text("secret")
    with served(Store(model.folder.parent)) as url:
        yield http.client.HTTPConnection(url.removeprefix("http://"), timeout=10)


def asked(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    connection.request("GET", path, headers={"connection": "close", "x-medrec-host": stores.HOST})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("path", TRAVERSALS)
def test_nothing_goes_out_but_what_the_manifest_names(
    raw: http.client.HTTPConnection, path: str
) -> None:
    assert asked(raw, f"/internal/models/demo/current/files/{WEIGHTS}")[0] == 200
    status, body = asked(raw, f"/internal/models/demo/current/files/{path}")
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("name", ["other", "..", "%2e%2e", "DEMO", "demo%2fversions", ".", ""])
@pytest.mark.parametrize("version", ["current", "previous", "..", "0" * 64, "versions", "%2e%2e"])
def test_what_is_not_in_the_store_is_not_found(
    raw: http.client.HTTPConnection, name: str, version: str
) -> None:
    for rest in ("manifest", f"files/{WEIGHTS}"):
        assert asked(raw, f"/internal/models/{name}/{version}/{rest}")[0] == 404


async def test_only_hosts_of_the_site_are_answered(client: httpx.AsyncClient, model: Model) -> None:
    for rest in ("manifest", f"files/{WEIGHTS}"):
        for headers in ({}, {"x-medrec-host": "mac-c"}):
            answer = await client.get(f"{base(model)}/{rest}", headers=headers)
            assert answer.status_code == 404


async def test_a_version_whose_manifest_is_damaged_is_not_offered(
    client: httpx.AsyncClient, model: Model
) -> None:
    (model.folder / "current" / "manifest.json").write_text("{}")
    answer = await client.get(f"{base(model)}/manifest", headers=HOST)
    assert answer.status_code == 404


async def test_more_files_at_once_than_there_is_room_for_are_refused_in_order(
    client: httpx.AsyncClient, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content.Streams, "most", property(lambda _: 0), raising=False)
    answer = await client.get(f"{base(model)}/files/{WEIGHTS}", headers=HOST)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_no_client_reads_of_these_paths_in_the_description(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    assert "/internal/" not in answer.text
