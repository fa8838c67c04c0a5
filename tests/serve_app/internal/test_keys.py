"""Proves that cells give each other keys over the wire, and that a rotation waits for all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from configs.args import Limits
from configs.site import Host
from deployments.cell.ports import Ports
from deployments.cell.state import CellError, Home
from deployments.data.accounts import signing
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from deployments.data.seal import keys
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.rotate import rotate
from deployments.data.seal.sealer import Sealer
from deployments.site.calling import Caller, CallFailed
from deployments.site.inside import Inside
from deployments.site.plan import HostPlan
from deployments.site.ports import HostPorts
from deployments.site.trust.delivery import PATH, Delivery
from deployments.site.trust.files import HostFiles, read_certificate
from deployments.site.trust.key_files import export_keys, held
from deployments.site.trust.renewal import ensure_site, host_files
from serve_app.internal.keys import key_routes
from serve_app.surface import create_app
from tests.deployments.data.seal.sealed_rows import add, opened, rows
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fake_security import services_of

A, EDGE = {"x-medrec-host": "mac-a"}, {"x-medrec-host": "edge-1"}


class Journal:
    """What would go to the audit's journal."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def journal(self, entry: AuditEntry) -> None:
        self.entries.append(entry)


@dataclass
class Cells:
    """mac-a with keys, mac-b with none, and mac-b's API as mac-a reaches it through both HAProxys."""

    a: HostPlan
    b: HostPlan
    journal: Journal = field(default_factory=Journal)
    is_down: bool = False

    def secrets(self, host: HostPlan) -> Path:
        return host.home.path / "secrets"

    def delivery(self) -> Delivery:
        return Delivery(self.a, (self.b,), self.secrets(self.a), cast(Inside, Wire(self)))

    def client(self) -> httpx.AsyncClient:
        audit = cast(Audit, self.journal)

        def routes(app: FastAPI) -> None:
            app.include_router(
                key_routes(self.secrets(self.b), self.b.tls, ("mac-a",), audit, "hospital")
            )

        callers = frozenset(("mac-a", "edge-1"))
        services = replace(services_of(FakeLanguage()), routes=(routes,), callers=callers)
        transport = httpx.ASGITransport(create_app(services, Limits()), raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://cell.test", headers=A)


class Wire:
    """The network between the cells: what `Inside` and `Caller` do, without HAProxy and TLS."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def run(self, work: Callable[[Caller], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            return await work(cast(Caller, self))

        return asyncio.run(whole())

    async def ask(
        self, host: HostPlan, port: int, path: str, *, timeout_s: float, body: Any = None
    ) -> Any:
        assert (host, port) == (self._cells.b, 8443)
        if self._cells.is_down:
            raise CallFailed(f"{host.name} does not answer: ConnectError")
        async with self._cells.client() as client:
            answer = await (client.get(path) if body is None else client.post(path, json=body))
        if answer.status_code != 200:
            raise CallFailed(f"{host.name} answers {answer.status_code}: {answer.json()['detail']}")
        return answer.json()


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    ensure_site(tmp_path / "ca", {"mac-a": [], "mac-b": [], "edge-1": []}, [])

    def host(name: str) -> HostPlan:
        plan = HostPlan(
            name=name,
            host=Host(role="cell", address="127.0.0.1", config="configs/local.yaml"),
            address="127.0.0.1",
            ports=HostPorts(),
            cell_ports=Ports(),
            home=Home(tmp_path / name),
            project=tmp_path,
            python="python",
        )
        host_files(tmp_path / "ca", name).copy_to(plan.tls)
        keys.prepare(plan.home.path / "secrets")
        return plan

    found = Cells(host("mac-a"), host("mac-b"))
    keys.create(found.secrets(found.a))
    signing.create(found.secrets(found.a), demo=False)
    return found


def envelope(cells: Cells) -> dict[str, str]:
    certificate = read_certificate(HostFiles.in_folder(cells.b.tls).certificate)
    own = HostFiles.in_folder(cells.a.tls)
    return {"envelope": export_keys(cells.secrets(cells.a), own, certificate).decode()}


def test_a_cell_gives_its_keys_to_another_and_it_is_on_record(cells: Cells) -> None:
    given = cells.delivery().send()
    assert (
        given == {"mac-b": held(cells.secrets(cells.a))} == {"mac-b": held(cells.secrets(cells.b))}
    )
    (entry,) = cells.journal.entries
    assert (entry.actor, entry.actor_kind, entry.action) == ("mac-a", "host", "key-change")
    assert entry.details["current"] == given["mac-b"].current


async def test_only_ids_are_told_and_only_to_a_cell(cells: Cells) -> None:
    async with cells.client() as client:
        await client.post(PATH, json=envelope(cells))
        told = (await client.get(PATH)).json()
        assert (await client.get(PATH, headers=EDGE)).status_code == 404
        assert (await client.post(PATH, json=envelope(cells), headers=EDGE)).status_code == 404
    assert set(told) == {"certificate", "current", "site", "signing"}
    secret = json.loads((cells.secrets(cells.b) / keys.FILE).read_text())
    assert not any(entry["key"] in json.dumps(told) for entry in secret["keys"].values())


async def test_an_envelope_that_another_host_sealed_is_refused(
    cells: Cells, tmp_path: Path
) -> None:
    certificate = read_certificate(HostFiles.in_folder(cells.b.tls).certificate)
    edge = host_files(tmp_path / "ca", "edge-1")
    body = {"envelope": export_keys(cells.secrets(cells.a), edge, certificate).decode()}
    async with cells.client() as client:
        answer = await client.post(PATH, json=body)
    assert answer.status_code == 409
    assert "edge-1 is no host that sends keys" in answer.json()["detail"]
    assert not keys.path_of(cells.secrets(cells.b)).exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"envelope": 1}', 400),
        (b'{"envelope": "{}"}', 409),
        (b'{"envelope": "' + b"x" * 600_000 + b'"}', 413),
    ],
)
async def test_what_is_no_envelope_is_a_clear_error(cells: Cells, body: bytes, status: int) -> None:
    async with cells.client() as client:
        answer = await client.post(PATH, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_a_cell_that_is_down_is_named_with_what_to_do(cells: Cells) -> None:
    cells.is_down = True
    with pytest.raises(CellError, match=r"mac-b does not answer.*keys export --for mac-b"):
        cells.delivery().send()


def test_a_rotation_gives_every_cell_the_key_before_it_is_used(
    cells: Cells, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.seal.rotate._settle", lambda *_: None)
    ours = cells.secrets(cells.a)
    way = cells.delivery()
    way.send()
    other = Sealer.load(cells.secrets(cells.b))
    carried: list[tuple[str, str]] = []

    def carry(loaded: keys.SiteKeys) -> None:
        way.carry(loaded)
        newest = max(loaded.keys.values(), key=lambda key: key.created).id
        carried.append((newest, held(cells.secrets(cells.b)).current))
        assert newest in held(cells.secrets(cells.b)).site

    with psycopg.connect(dsns[1], autocommit=True) as owner:
        sealer = Sealer.load(ours)
        add(owner, sealer, 1)
        texts = opened(rows(owner), sealer)
        done = rotate(ours, dsns[1], carry=carry)
        assert done.rewrapped
        # The first time it is there and not current, the second time it is.
        assert carried == [(done.new, done.old), (done.new, done.new)]
        # The other cell opens what was re-wrapped, and writes under the new key.
        assert opened(rows(owner), other) == texts
        assert other.current == done.new


def test_a_rotation_does_not_begin_without_a_cell_and_goes_on_later(
    cells: Cells, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.seal.rotate._settle", lambda *_: None)
    ours = cells.secrets(cells.a)
    way = cells.delivery()
    way.send()
    before = keys.read(ours).current
    cells.is_down = True
    with pytest.raises(SiteKeysError, match="mac-b must have the keys first"):
        rotate(ours, dsns[1], carry=way.carry)
    assert keys.read(ours).current == before
    assert keys.read(ours).rotating_from is None
    cells.is_down = False
    done = rotate(ours, dsns[1], carry=way.carry)
    assert held(cells.secrets(cells.b)).current == done.new
    assert keys.read(ours).keys.keys() == {done.new}


def test_a_rotation_that_lost_a_cell_on_the_way_is_gone_on_with(
    cells: Cells, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.seal.rotate._settle", lambda *_: None)
    ours = cells.secrets(cells.a)
    way = cells.delivery()
    way.send()

    def once(loaded: keys.SiteKeys) -> None:
        way.carry(loaded)
        cells.is_down = True

    with pytest.raises(SiteKeysError, match="must have the keys first"):
        rotate(ours, dsns[1], carry=once)
    old = keys.read(ours).rotating_from
    assert old is not None
    assert old in keys.read(ours).keys
    cells.is_down = False
    done = rotate(ours, dsns[1], carry=way.carry)
    assert (done.resumed, done.old) == (True, old)
    assert held(cells.secrets(cells.b)).current == done.new
