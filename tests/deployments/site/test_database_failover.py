"""Three etcd members and two PostgreSQL under Patroni, from the rendered files, on one loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.data import postgres_account
from deployments.data.durable import replace_file
from deployments.data.postgres import APPLICATION, OWNER
from deployments.edge.lease import end_lease
from deployments.site.calling import Caller, context
from deployments.site.etcd import etcd_config
from deployments.site.passwords import COPY, Passwords
from deployments.site.patroni import patroni_config, pgpass
from deployments.site.patroni_files import put
from deployments.site.plan import LOOPBACK, HostPlan, Plan, on_this_machine, program
from tests.conftest import memory_folder
from tests.deployments.site.authority import certify

# The faults of a whole site (tests/site) do the same over HTTP; these look at the servers.
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

_STEP_S = 90.0


@dataclass
class Databases:
    """The programs of the site's database, and how to ask them."""

    plan: Plan
    passwords: Passwords
    folder: Path
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start_etcd(self, host: HostPlan) -> None:
        """One member, as our own child."""
        host.etcd_data.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(host.etcd_config, etcd_config(self.plan, host).encode())
        self._start(host, "etcd", [program("etcd"), "--config-file", str(host.etcd_config)], {})

    def start_patroni(self, host: HostPlan) -> None:
        """One cell's Patroni, under PostgreSQL's account."""
        config = patroni_config(
            self.plan, host, self.passwords, parameters={"shared_buffers": "32MB", "fsync": "off"}
        )
        put(self.plan, host, config, self.passwords)
        replace_file(host.passfile, pgpass(self.plan, host, self.passwords).encode())
        line = [sys.executable, "-m", "patroni", str(host.patroni_config)]
        self._start(host, "patroni", line, dict(postgres_account.identity()))

    def _start(
        self, host: HostPlan, name: str, line: list[str], account: dict[str, object]
    ) -> None:
        with (self.folder / f"{host.name}-{name}.log").open("ab") as log:
            self.running[f"{host.name}/{name}"] = subprocess.Popen(
                line,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **account,  # type: ignore[call-overload]
            )

    def kill_database(self, host: HostPlan) -> None:
        """Patroni and every PostgreSQL process of the host at once, as when its power goes."""
        patroni = self.running.pop(f"{host.name}/patroni")
        patroni.kill()
        patroni.wait()
        self._kill_servers(host)

    @contextmanager
    def frozen(self, host: HostPlan) -> Iterator[None]:
        """Patroni and every PostgreSQL process of the host stop, as when its machine hangs."""
        processes = [psutil.Process(self.running[f"{host.name}/patroni"].pid), *self._servers(host)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def deaf(self, host: HostPlan) -> Iterator[None]:
        """Nothing of the leader's log arrives at the host's server."""
        receiver = next(p for p in self._servers(host) if "walreceiver" in " ".join(p.cmdline()))
        receiver.suspend()
        try:
            yield
        finally:
            # It ends before it reads what the kernel has kept for it.
            receiver.terminate()
            receiver.resume()

    def _servers(self, host: HostPlan) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.name() == "postgres" and process.cwd() == str(host.database):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self) -> None:
        """Patroni first, which stops its PostgreSQL."""
        for name in sorted(self.running, reverse=True):
            self.running[name].send_signal(signal.SIGTERM)
        for process in self.running.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for host in self.plan.cells:
            self._kill_servers(host)

    def _kill_servers(self, host: HostPlan) -> None:
        for server in self._servers(host):
            with suppress(psutil.NoSuchProcess):
                server.kill()

    def roles(self) -> dict[str, str]:
        """Role of each member that runs, by name, from whichever Patroni answers."""
        for host in self.plan.cells:
            try:
                answer = httpx.get(
                    f"https://{host.address}:{host.ports.patroni}/cluster",
                    verify=context(host.tls),
                    trust_env=False,
                    timeout=3.0,
                )
            except httpx.HTTPError:
                continue
            return {
                entry["name"]: entry["role"]
                for entry in answer.json()["members"]
                if entry["state"] in ("running", "streaming")
            }
        return {}

    def connect(self, host: HostPlan, role: str = APPLICATION) -> psycopg.Connection:
        """A connection to one server as one of the host's roles, by its passfile."""
        return psycopg.connect(
            host=LOOPBACK,
            port=host.ports.postgres,
            user=role,
            dbname="medrec",
            passfile=str(self.plan.cells[0].passfile),
            connect_timeout=3,
            autocommit=True,
        )

    def logs(self) -> str:
        """The ends of all logs."""
        tails = (f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.folder.glob("*.log"))
        return "\n".join(tails)

    def wait(self, what: str, true: Callable[[], bool]) -> float:
        """Seconds until it is true."""
        begun = time.monotonic()
        while not true():
            if time.monotonic() - begun > _STEP_S:
                raise AssertionError(f"not within {_STEP_S:g} s: {what}\n{self.logs()}")
            time.sleep(0.3)
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    """All five, once for this module."""
    with tempfile.TemporaryDirectory(prefix="medrec-site-", dir=memory_folder()) as name:
        folder = Path(name).resolve()
        site = load_site(PROJECT_ROOT / "configs" / "site-local.yaml")
        plan = on_this_machine(site, folder, "loopback", base=_free_base())
        certify(plan, folder / "ca")
        found = Databases(plan, Passwords.made(), folder)
        try:
            for member in plan.etcd:
                found.start_etcd(member)
            for cell in plan.cells:
                found.start_patroni(cell)
            yield found
        finally:
            found.stop()


def _free_base() -> int:
    """A first port with blocks of free ones after it."""
    for base in range(14_100, 19_000, 200):
        probes = []
        try:
            for port in range(base, base + 120):
                probe = socket.socket()
                probes.append(probe)
                probe.bind((LOOPBACK, port))
            return base
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no ports are free")


def test_the_standby_leads_with_every_committed_row_and_the_old_leader_is_rewound(
    databases: Databases,
) -> None:
    """Kill the leader's server and Patroni; timings are printed (`-s`)."""
    both = {"leader", "sync_standby"}
    up_s = databases.wait("a leader and a synchronous standby", lambda: _roles(databases) == both)
    leader, standby = _by_role(databases)
    with databases.connect(leader, OWNER) as owner:
        owner.execute("CREATE TABLE kept (id int primary key)")
        owner.execute(f"GRANT SELECT, INSERT ON kept TO {APPLICATION}")
    with databases.connect(leader) as connection:
        connection.execute("INSERT INTO kept VALUES (1)")
        # A commit has been flushed there when it returns, and is replayed in a moment.
        databases.wait("the row on the standby", lambda: _rows(databases, standby) == [1])
        connection.execute("INSERT INTO kept VALUES (2)")
        with databases.deaf(standby):
            # Acknowledged by nobody but a leader that is about to be gone.
            connection.execute("SET synchronous_commit = local")
            connection.execute("INSERT INTO kept VALUES (99)")
            databases.kill_database(leader)
    killed = time.monotonic()
    databases.wait("a write on the standby", lambda: _wrote(databases, standby, 3))
    took_s = time.monotonic() - killed
    assert took_s < 30
    assert _rows(databases, standby) == [1, 2, 3]

    databases.start_patroni(leader)
    back_s = databases.wait("both again", lambda: _roles(databases) == both)
    assert _by_role(databases) == (standby, leader)
    databases.wait("the row on the old leader", lambda: _rows(databases, leader) == [1, 2, 3])
    log = (databases.folder / f"{leader.name}-patroni.log").read_text()
    assert "pg_rewind exit code=0" in log, log[-3000:]
    print(f"\nup {up_s:.1f} s, failover {took_s:.1f} s, redundant again after {back_s:.1f} s")


async def test_a_frozen_leader_whose_lease_is_ended_is_followed_at_once_and_wakes_as_a_standby(
    databases: Databases,
) -> None:
    both = {"leader", "sync_standby"}
    databases.wait("a leader and a synchronous standby", lambda: _roles(databases) == both)
    leader, standby = _by_role(databases)
    caller = Caller(databases.plan.edges[0].tls)
    try:
        await end_lease(caller, databases.plan, standby.name)
        await asyncio.sleep(2)
        assert _by_role(databases) == (leader, standby), "a lease that another holds was ended"
        with databases.frozen(leader):
            frozen = time.monotonic()
            # The standby's stream has ended after this, as the steward would see.
            await asyncio.sleep(databases.plan.site.database.silence_s + 1)
            await end_lease(caller, databases.plan, leader.name)
            databases.wait("a write on the standby", lambda: _wrote(databases, standby, 4))
            took_s = time.monotonic() - frozen
        thawed = time.monotonic()
        while time.monotonic() - thawed < 5:
            # One that wakes within its old lease must not take itself for the leader.
            assert not _wrote(databases, leader, 5)
            await asyncio.sleep(0.2)
    finally:
        await caller.close()
    # Renewed at the latest look before, it would have ended no sooner by itself.
    rules = databases.plan.site.database
    assert took_s < rules.ttl_s - rules.loop_wait_s
    databases.wait("both again", lambda: _roles(databases) == both)
    assert _by_role(databases) == (standby, leader)
    databases.wait("the row on the old leader", lambda: 4 in _rows(databases, leader))
    assert 5 not in _rows(databases, standby)


def test_patronictl_lists_the_members_by_the_rendered_configuration(databases: Databases) -> None:
    databases.wait("a leader", lambda: "leader" in _roles(databases))
    config = str(databases.plan.cells[0].patroni_config)
    line = [sys.executable, "-c", "from patroni.ctl import ctl; ctl()"]
    done = subprocess.run(
        [*line, "-c", config, "list", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    members = json.loads(done.stdout)
    assert {entry["Member"] for entry in members} == {"mac-a", "mac-b"}
    assert {entry["Cluster"] for entry in members} == {"medrec-local"}


def test_roles_have_the_rights_they_need_and_no_more(databases: Databases) -> None:
    databases.wait("a leader", lambda: "leader" in _roles(databases))
    leader = _by_role(databases)[0]
    with databases.connect(leader, OWNER) as owner:
        rows = owner.execute(
            "SELECT rolname, rolsuper, rolreplication FROM pg_roles WHERE rolname ~ '^medrec'"
        )
        found = {name: rights for name, *rights in rows.fetchall()}
        checksums = owner.execute("SHOW data_checksums").fetchone()
        level = owner.execute("SHOW wal_level").fetchone()
    assert found[OWNER] == [True, False]
    assert found[APPLICATION] == [False, False]
    assert found[COPY] == [False, True]
    assert checksums == ("on",)
    assert level == ("logical",)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host=LOOPBACK, port=leader.ports.postgres, user=APPLICATION, dbname="medrec",
            password="wrong", passfile="/dev/null",
        )  # fmt: skip
    with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf"):
        psycopg.connect(
            host=LOOPBACK, port=leader.ports.postgres, user=APPLICATION, dbname="postgres",
            passfile=str(leader.passfile),
        )  # fmt: skip


def _roles(databases: Databases) -> set[str]:
    return set(databases.roles().values())


def _by_role(databases: Databases) -> tuple[HostPlan, HostPlan]:
    names = {role: name for name, role in databases.roles().items()}
    return databases.plan.hosts[names["leader"]], databases.plan.hosts[names["sync_standby"]]


def _rows(databases: Databases, host: HostPlan) -> list[int]:
    with databases.connect(host) as connection:
        return [id for (id,) in connection.execute("SELECT id FROM kept ORDER BY id").fetchall()]


def _wrote(databases: Databases, host: HostPlan, id: int) -> bool:
    try:
        with databases.connect(host) as connection:
            connection.execute("INSERT INTO kept VALUES (%s)", [id])
    except psycopg.Error:
        return False
    return True
