"""Real HAProxies of a site on one loopback, with made-up API replicas behind the cells'."""

from __future__ import annotations

import fcntl
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from configs.reader import PROJECT_ROOT
from configs.site import Site, load_site
from deployments.cell.ports import Ports, is_free
from deployments.edge import haproxy, runtime
from deployments.edge.decision import ServerState
from deployments.site.edge_config import write_haproxy
from deployments.site.local_files import put_certificates
from deployments.site.plan import HostPlan, Plan, on_this_machine
from deployments.site.ports import BLOCK
from deployments.site.trust.authority import Authority, devices_folder
from tests.deployments.replies import Replies, Server

READY_TIMEOUT_S = 20.0
SLOT_TIMEOUT_S = 180.0


@dataclass
class Replica:
    """An API replica as the cells' HAProxies see one; what it answers can be changed."""

    cell: str
    port: int
    ready: bool = True
    status: int = 200
    pause_s: float = 0.0
    hang_up: bool = False
    stalls_s: float = 0.0
    condition: dict[str, object] | None = None
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    server: Server | None = None

    def start(self) -> None:
        replica = self

        class Handler(Replies):
            def do_GET(self) -> None:
                if self.path == "/-/routes":
                    self.answer(200, json.dumps({"/": "api"}).encode())
                    return
                if self.path == "/health/ready":
                    self.answer(200 if replica.ready else 503, b"{}")
                    return
                if self.path == "/internal/condition" and replica.condition is not None:
                    self.answer(200, json.dumps(replica.condition).encode())
                    return
                replica.seen.append((self.command, self.path, self.fields))
                if self.command == "POST":
                    replica.bodies.append(self.body)
                if replica.pause_s:
                    time.sleep(replica.pause_s)
                if replica.hang_up:
                    self.close_connection = True
                    return
                if self.path.startswith("/internal/"):
                    self.answer(204, b"")
                    return
                self.answer(replica.status, replica.cell.encode(), stalls_s=replica.stalls_s)

        self.server = Server(self.port, Handler)

    def stop(self) -> None:
        if self.server is not None:
            self.server.end()
            self.server = None


@dataclass
class Edges:
    """The HAProxies of every host, and a replica in each cell and in the emergency cell."""

    plan: Plan
    replicas: dict[str, Replica] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def edge(self) -> HostPlan:
        return self.plan.edges[0]

    def phone(self, user: str) -> ssl.SSLContext:
        """A client's TLS with a device's certificate, issued just now."""
        ca = self.edge.home.path.parents[1] / "ca"
        files = Authority(devices_folder(ca)).issue_device(user).files
        made = self.context()
        made.load_cert_chain(files.certificate, files.key)
        return made

    def start(self, host: HostPlan) -> None:
        config = write_haproxy(self.plan, host)
        haproxy.check(config)
        with (host.home.logs / "haproxy.log").open("ab") as log:
            self.processes[host.name] = subprocess.Popen(
                [haproxy.binary(), "-W", "-db", "-f", str(config)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, host: str) -> None:
        process = self.processes.pop(host)
        process.terminate()
        process.wait(10)

    def context(self, identity: str | None = None) -> ssl.SSLContext:
        """A client's TLS: with a host's certificate, or with none."""
        made = ssl.create_default_context(cafile=str(self.edge.tls / "ca.crt"))
        if identity is not None:
            folder = self.plan.hosts[identity].tls
            made.load_cert_chain(folder / "host.crt", folder / "host.key")
        return made

    def client(self, context: ssl.SSLContext | None = None) -> httpx.Client:
        """A client of the first edge."""
        return httpx.Client(
            base_url=f"https://localhost:{self.edge.ports.https}",
            verify=context or self.context(),
            timeout=30,
            trust_env=False,
        )

    def is_up(self, host: HostPlan, backend: str, name: str) -> bool:
        with suppress(runtime.RuntimeUnavailable):
            return any(
                s.is_up and s.backend == backend and s.name == name
                for s in runtime.servers(host.haproxy_socket)
            )
        return False

    def wait_up(self, name: str, up: bool = True) -> None:
        """Until the edge has the host as up, or as down, in every backend of its kind."""
        cloud = self.plan.cloud
        is_cloud = cloud is not None and name == cloud.name
        for backend in runtime.OF_CLOUD if is_cloud else runtime.OF_CELLS:
            self._wait(self.edge, backend, name, up)

    def wait_replica(self, name: str) -> None:
        """Until the cell itself has its replica as up; the edge may not have seen it down."""
        host = self.plan.hosts[name]
        self._wait(host, "api", f"r{host.cell_ports.ingress_first}", up=True)

    def _wait(self, host: HostPlan, backend: str, server: str, up: bool) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while self.is_up(host, backend, server) != up:
            assert time.monotonic() < deadline, f"{server} in {backend} is never {up}"
            time.sleep(0.05)

    def states(self, states: dict[str, ServerState]) -> None:
        runtime.bring_about(self.edge.haproxy_socket, states)


def quick(site: Site) -> Site:
    """The local site with the figures of a test: what takes seconds there takes a fraction here."""
    fast = {"every_s": 0.2, "fast_s": 0.1, "timeout_s": 0.5, "fall": 3, "rise": 2}
    raw = site.model_dump(mode="json")
    raw["edge"] |= {"cells": fast, "emergency": fast, "public_name": "localhost"}
    raw["edge"] |= {"requests_per_10_s": 2000}
    raw["failover"] |= {"hold_s": 0.5, "unfit_hold_s": 3.0}
    return Site.model_validate(raw)


@contextmanager
def plan_of_our_own(site: Site, folder: Path) -> Iterator[Plan]:
    """A plan on ports that are free, and that no other of pytest's workers takes meanwhile."""
    with _slot() as slot:
        deadline = time.monotonic() + SLOT_TIMEOUT_S
        while (plan := _free_plan(site, folder, slot)) is None:
            # Ports of a cell that has just ended rest for a minute.
            assert time.monotonic() < deadline, "no free ports"
            time.sleep(1)
        yield plan


def _free_plan(site: Site, folder: Path, slot: int) -> Plan | None:
    # Six hosts have an offset each: there is room for two whole sites.
    for base in range(14_400 + 200 * slot, 18_000, 400):
        plan = on_this_machine(site, folder, "loopback", base=base, cell_offset=6000 * slot)
        blocks = range(base, base + BLOCK * len(plan.hosts))
        ingress = [host.cell_ports for host in plan.hosts.values()]
        if all(is_free(port) for port in blocks) and all(_is_free(ports) for ports in ingress):
            return plan
    return None


@contextmanager
def _slot() -> Iterator[int]:
    """0 or 1, held against every other process of the machine that asks here."""
    deadline = time.monotonic() + SLOT_TIMEOUT_S
    with ExitStack() as stack:
        places = [Path(tempfile.gettempdir()) / f"medrec-test-edges-{slot}.lock" for slot in (0, 1)]
        files = [stack.enter_context(place.open("a")) for place in places]
        while time.monotonic() < deadline:
            for slot, file in enumerate(files):
                with suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield slot
                    return
            time.sleep(0.2)
    raise AssertionError("both places for a site are taken")


def _is_free(ports: Ports) -> bool:
    return is_free(ports.public) and is_free(ports.ingress_first)


@contextmanager
def running(folder: Path) -> Iterator[Edges]:
    """Cells, emergency cell and the first edge, up."""
    site = quick(load_site(PROJECT_ROOT / "configs" / "site-local.yaml"))
    with plan_of_our_own(site, folder) as plan, _running(plan, folder) as edges:
        yield edges


@contextmanager
def _running(plan: Plan, folder: Path) -> Iterator[Edges]:
    for host in plan.hosts.values():
        host.home.prepare()
    put_certificates(plan, folder / "ca")
    edges = Edges(plan)
    try:
        hosts = [*plan.cells, *([plan.cloud] if plan.cloud else [])]
        for host in hosts:
            edges.replicas[host.name] = Replica(host.name, host.cell_ports.ingress_first)
            edges.replicas[host.name].start()
            edges.start(host)
        edges.start(edges.edge)
        for cell in plan.cells:
            edges.wait_up(cell.name)
        yield edges
    finally:
        for name in list(edges.processes):
            edges.stop(name)
        for replica in edges.replicas.values():
            replica.stop()
