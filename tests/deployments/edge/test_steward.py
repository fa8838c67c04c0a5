"""A steward before its real HAProxy: it moves traffic, keeps it, opens emergency, obeys, remembers."""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from deployments.edge import sight
from deployments.edge import steward as stewarding
from deployments.edge.decision import Order
from deployments.edge.steward import Steward
from deployments.edge.steward_api import create_app, server
from deployments.site.calling import Caller, CallFailed
from deployments.site.plan import HostPlan, Plan
from tests.deployments.site.edges import Edges, running

WAIT_S = 20.0
FIT: dict[str, object] = {"models": {"faulty": {}}, "blobs": {"missing": 0}}


@pytest.fixture
def site(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Edges]:
    # A lost cell has been heard lately: here that is over soon.
    monkeypatch.setattr(sight, "HEARD_S", 3.0)
    with running(tmp_path_factory.mktemp("steward")) as edges:
        for name, replica in edges.replicas.items():
            replica.condition = {**FIT, "copy": {"age_s": 4.0, "at": time.time()}}
            if name != "cloud":
                replica.condition.pop("copy")
        yield edges


@pytest.fixture
async def steward(site: Edges) -> AsyncIterator[Steward]:
    made = Steward(site.plan, site.edge)
    task = asyncio.create_task(made.run())
    try:
        await until(lambda: not any(cell.faults for cell in made.sight.seen().cells))
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, "it did not come"
        await asyncio.sleep(0.05)


async def ask(site: Edges, *, within_s: float = 30.0) -> tuple[int, str]:
    """Which cell answers a client."""

    def once() -> tuple[int, str]:
        with site.client() as client:
            answer = client.get("/v1/models", timeout=within_s)
            return answer.status_code, answer.text

    return await asyncio.to_thread(once)


def is_open(steward: Steward) -> bool:
    """Whether requests go to the emergency cell: it is up before that, in drain."""
    return any(s.name == "cloud" and s.is_up and s.admin == "ready" for s in steward.sight.servers)


def decisions(site: Edges) -> list[dict[str, Any]]:
    file = site.edge.folder / "decisions.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_a_lost_cell_is_replaced_stays_away_and_comes_back_by_an_order(
    site: Edges, steward: Steward
) -> None:
    site.replicas["mac-a"].stop()
    await until(lambda: steward.standing.serving == ("mac-b",))
    assert await ask(site) == (200, "mac-b")
    site.replicas["mac-a"].start()
    await until(lambda: steward.sight.is_up("mac-a"))
    await asyncio.sleep(1.5)
    assert await ask(site) == (200, "mac-b"), "traffic flapped back"
    await until(lambda: not steward.sight.faults("mac-a"))
    decision = await steward.order(Order("serve", "mac-a"))
    assert decision.action == "serve"
    assert await ask(site) == (200, "mac-a")
    [lost, back] = decisions(site)
    assert lost["reason"].startswith("mac-a does not answer; mac-b is fit")
    assert (back["action"], back["serving"]) == ("serve", ["mac-a"])
    posts = ("POST", "/internal/acts")
    for cell in ("mac-b", "mac-a"):  # each decision, at a cell that answers
        await until(lambda c=cell: any(e[:2] == posts for e in site.replicas[c].seen))  # type: ignore[misc]


def post(site: Edges, delay_s: float) -> str:
    """Which cell answers a write, or what becomes of it."""
    time.sleep(delay_s)
    try:
        with site.client() as client:
            answer = client.post("/fhir/Observation", content=b"x")
    except httpx.RemoteProtocolError:
        return "cut off"
    return answer.text if answer.status_code == 200 else "cut off"


async def test_of_writes_to_a_frozen_cell_those_that_arrived_are_cut_off_and_the_others_go_on(
    site: Edges, steward: Steward
) -> None:
    frozen = psutil.Process(site.processes["mac-a"].pid)
    family = [frozen, *frozen.children()]
    first = site.replicas["mac-a"]
    first.pause_s = 60.0
    arrived = asyncio.create_task(asyncio.to_thread(post, site, 0.0))
    await until(lambda: any(method == "POST" for method, _, _ in first.seen))
    for process in family:
        process.suspend()
    try:
        later = [asyncio.to_thread(post, site, i * 0.1) for i in range(12)]
        assert await asyncio.gather(*later) == ["mac-b"] * 12
        assert await asyncio.wait_for(arrived, WAIT_S) == "cut off"
    finally:
        first.pause_s = 0.0
        for process in family:
            process.resume()
    await until(lambda: steward.sight.is_up("mac-a"))
    assert steward.standing.serving == ("mac-b",)


async def test_emergency_is_activated_before_it_is_opened_and_ends_by_an_order(
    site: Edges, steward: Steward
) -> None:
    for name in ("mac-a", "mac-b"):
        site.replicas[name].stop()
    await until(lambda: steward.standing.mode == "emergency")
    assert "in the last" in steward.standing.reason
    await until(lambda: is_open(steward))
    assert await ask(site) == (200, "cloud")
    calls = [path for method, path, _ in site.replicas["cloud"].seen if method == "POST"]
    assert calls[0] == "/internal/emergency/activate"
    assert not (await steward.order(Order("return", "mac-a"))).standing.serving
    site.replicas["mac-a"].start()
    await until(lambda: steward.sight.is_up("mac-a") and not steward.sight.faults("mac-a"))
    assert (await ask(site))[1] == "cloud", "emergency ended by itself"
    assert (await steward.order(Order("return", "mac-a"))).action == "serve"
    assert await ask(site) == (200, "mac-a")
    await until(
        lambda: any(p == "/internal/emergency/end" for _, p, _ in site.replicas["cloud"].seen)
    )


async def test_an_unfit_standby_is_kept_out_until_it_is_fit(site: Edges, steward: Steward) -> None:
    site.replicas["mac-b"].condition = {**FIT, "blobs": {"missing": 3, "lost": 1}}
    await until(lambda: bool(steward.sight.faults("mac-b")))
    assert steward.sight.faults("mac-b") == ("2 documents are missing on it",)
    await asyncio.sleep(1.0)
    site.replicas["mac-a"].stop()
    await until(lambda: steward.last is not None and steward.last.action == "wait")
    # The edge goes on asking the one that is gone, and lets nobody to the other.
    with pytest.raises(httpx.ReadTimeout):
        await ask(site, within_s=1.0)
    # What neither cell has does not keep it out.
    site.replicas["mac-b"].condition = {**FIT, "blobs": {"missing": 1, "lost": 1}}
    await until(lambda: steward.standing.serving == ("mac-b",))
    assert await ask(site) == (200, "mac-b")


async def test_how_things_stand_outlives_the_steward(site: Edges, steward: Steward) -> None:
    await steward.order(Order("drain", "mac-a"))
    again = Steward(site.plan, site.edge)
    assert again.standing.drained == {"mac-a"}
    assert again.standing.serving == ("mac-b",)


async def test_a_site_that_is_started_again_waits_for_its_cells_before_it_is_an_emergency(
    site: Edges, steward: Steward
) -> None:
    await until(lambda: steward.standing.has_served)
    again = Steward(site.plan, site.edge)
    for name in ("mac-a", "mac-b"):
        site.replicas[name].stop()
    await until(lambda: not steward.sight.is_up("mac-a") and not steward.sight.is_up("mac-b"))
    task = asyncio.create_task(again.run())
    try:
        await until(lambda: again.last is not None and "being started" in again.last.reason)
        await asyncio.sleep(1.0)
        assert again.standing.mode == "normal"
        # The other edge has seen them since, so that they are lost and not late.
        again.sight.other.tell({"edge": "edge-2", "active": False, "reached": True})
        await until(lambda: again.standing.mode == "emergency")
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def by(steward: Steward, peer: str | None) -> httpx.AsyncClient:
    """A client whose certificate bears that name, as the server of the port tells the application."""
    app = create_app(steward)

    async def named(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "state": {"peer": peer}}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(named), base_url="https://edge-1")


async def test_orders_come_from_cells_and_edges_alone(site: Edges, steward: Steward) -> None:
    order = {"kind": "drain", "cell": "mac-a"}
    serving = server(steward)
    task = asyncio.create_task(serving.serve())
    callers = {name: Caller(site.plan.hosts[name].tls) for name in ("witness", "cloud", "mac-b")}
    try:
        await until(lambda: serving.started)

        async def sent(name: str) -> Any:
            return await callers[name].ask(
                site.edge, site.edge.ports.steward, "/orders", timeout_s=5.0, body=order,
                permitted=(200, 403),
            )  # fmt: skip

        for name in ("witness", "cloud"):
            assert (await sent(name))["detail"] == "Orders come from cells and edges."
        assert steward.standing.drained == frozenset()
        assert (await sent("mac-b"))["action"] == "serve"
        assert steward.standing.drained == {"mac-a"}
    finally:
        for caller in callers.values():
            await caller.close()
        serving.should_exit = True
        await task
    async with by(steward, None) as nobody:
        assert (await nobody.post("/orders", json=order)).status_code == 403
        assert (await nobody.get("/status")).status_code == 200


async def test_an_edge_that_cannot_write_still_acts(
    site: Edges, steward: Steward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(stewarding, "replace_file", refuse)
    for name in ("mac-a", "mac-b"):
        site.replicas[name].stop()
    await until(lambda: steward.standing.mode == "emergency")
    await until(lambda: is_open(steward))
    assert await ask(site) == (200, "cloud")
    assert steward.counts["unwritten"] > 0


async def test_a_blind_edge_asks_the_other_one_to_take_the_address(
    site: Edges, steward: Steward
) -> None:
    other = {"edge": "edge-2", "active": False, "reaches": ["mac-b"]}
    for name in ("mac-a", "mac-b"):
        site.replicas[name].stop()

    def is_asked() -> bool:
        steward.sight.other.tell(other)
        return site.edge.gives_up.exists()

    await until(is_asked)
    assert steward.standing.mode == "normal"
    site.replicas["mac-a"].start()
    await until(lambda: steward.sight.is_up("mac-a"))
    await asyncio.sleep(1.0)
    touched = site.edge.gives_up.stat().st_mtime
    await asyncio.sleep(1.5)
    assert site.edge.gives_up.stat().st_mtime == touched, "it goes on asking"


async def test_what_the_other_edge_decided_in_its_isolation_is_not_followed(
    site: Edges, steward: Steward
) -> None:
    await until(lambda: steward.standing.has_served)
    own = steward.standing
    told = json.loads(json.dumps(steward.status()["standing"]))
    lost = {
        **told,
        "serving": ["mac-b"],
        "retired": ["mac-a"],
        "number": own.number + 1,
        "since": own.since + 60,
    }
    other = {"edge": "edge-2", "active": False, "reaches": ["mac-b"], "standing": lost}
    steward.sight.other.tell(other)
    await until(lambda: steward.standing.number == own.number + 2)
    assert steward.standing.serving == ("mac-a",)
    assert await ask(site) == (200, "mac-a")
    ordered = {**lost, "number": own.number + 3, "ordered": True}
    steward.sight.other.tell({**other, "standing": ordered})
    await until(lambda: steward.standing.serving == ("mac-b",))
    assert [line["action"] for line in decisions(site)] == ["keep", "learn"]


async def test_status_orders_and_metrics_are_told_over_http(site: Edges, steward: Steward) -> None:
    async with by(steward, "mac-a") as client:
        status = (await client.get("/status")).json()
        assert (status["edge"], status["active"], status["reaches"]) == (
            "edge-1",
            True,
            ["mac-a", "mac-b"],
        )
        assert status["cloud"]["copy_age_s"] >= 4
        refused = await client.post("/orders", json={"kind": "return", "cell": "mac-a"})
        assert refused.status_code == 409
        assert "no emergency" in refused.json()["reason"]
        for body in ({"kind": "dance"}, {"kind": "serve", "other": 1}, [1]):
            bad = await client.post("/orders", json=body)
            assert bad.status_code == 400
            assert bad.headers["content-type"] == "application/problem+json"
        assert (await client.post("/orders", content=b"x" * 5000)).status_code == 413
        done = await client.post("/orders", json={"kind": "drain", "cell": "mac-a"})
        assert done.json()["reason"] == "an operator drained mac-a; mac-b serves"
        page = (await client.get("/metrics")).text
    assert 'medrec_site_cell_up{cell="mac-a"} 1.0' in page
    assert 'medrec_site_serving{cell="mac-b"} 1.0' in page
    assert 'medrec_site_aside{cell="mac-a"} 1.0' in page
    assert 'medrec_site_mode{mode="normal"} 1.0' in page
    assert 'medrec_site_decision_total{action="serve"} 1.0' in page
    samples = [line.rpartition(" ")[0] for line in page.splitlines() if line[:1] not in ("#", "")]
    assert len(samples) == len(set(samples)), "Prometheus drops what is told twice"
    assert any(sample.startswith("medrec_certificate_ends_s{") for sample in samples)


@pytest.mark.parametrize("error", [None, CallFailed("edge-1 does not answer")])
async def test_a_silent_primary_s_lease_is_ended_once_in_a_while_and_put_on_record(
    site: Edges, steward: Steward, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    ended = []

    async def end_lease(caller: Caller, plan: Plan, leader: str) -> None:
        ended.append(leader)
        if error is not None:
            raise error

    monkeypatch.setattr(stewarding, "end_lease", end_lease)
    members = [{"name": "mac-a", "role": "leader"}, {"name": "mac-b", "role": "sync_standby"}]
    standby = {"state": "running", "role": "replica", "sync_standby": True}
    steward.sight.since -= 60

    def told(replication: str) -> None:
        steward.sight.patroni.tell({"members": members})
        steward.sight.databases["mac-b"].tell({**standby, "replication_state": replication})

    for _ in range(15):
        told("streaming")
        await asyncio.sleep(0.1)
    assert not ended, "its standby hears it"
    for _ in range(20):
        told("in archive recovery")
        await asyncio.sleep(0.1)
    assert ended == ["mac-a"]
    assert [line["action"] for line in decisions(site)] == ["end-lease"]


class FakePatroni:
    """Stands for the call of Patroni's switchover; each attempt is noted, and fails if wanted."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._error = error

    async def __call__(
        self, host: HostPlan, port: int, path: str, body: Any, *, timeout_s: float
    ) -> str:
        self.asked.append((host.name, path, body))
        if self._error is not None:
            raise self._error
        return "Successfully switched over"


@pytest.mark.parametrize("error", [None, CallFailed("mac-a answers 503")])
async def test_the_primary_is_moved_off_a_full_disk_once_in_a_while_and_put_on_record(
    site: Edges, steward: Steward, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    patroni = FakePatroni(error)
    monkeypatch.setattr(steward._caller, "post_text", patroni)
    roles = {"mac-a": ("leader", "running"), "mac-b": ("sync_standby", "streaming")}
    members = [{"name": n, "role": role, "state": state} for n, (role, state) in roles.items()]
    full, roomy = (
        {"free_bytes": 0, "total_bytes": 2**30},
        {"free_bytes": 2**30, "total_bytes": 2**30},
    )
    site.replicas["mac-a"].condition = {**FIT, "disk": full}
    site.replicas["mac-b"].condition = {**FIT, "disk": roomy}

    def told() -> bool:
        steward.sight.patroni.tell({"members": members})
        return len(patroni.asked) > 0

    await until(told)
    await asyncio.sleep(1.5)
    body = {"leader": "mac-a", "candidate": "mac-b"}
    assert patroni.asked == [("mac-a", "/switchover", body)]
    assert steward.standing.serving == ("mac-a",)
    last = json.loads((site.edge.folder / "decisions.jsonl").read_text().splitlines()[-1])
    assert (last["action"], "0 MiB left" in last["reason"]) == ("move-primary", True)
