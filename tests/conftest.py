"""What all tests share: Ray's settings, a real PostgreSQL, and one real cell, where needed."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from argon2 import PasswordHasher
from hypothesis import settings

from configs.reader import PROJECT_ROOT
from deployments.cell import head, state
from deployments.cell.ports import Ports
from deployments.cell.processes import members
from deployments.data import postgres as local_postgres
from deployments.data.accounts import passwords
from deployments.data.database import Database
from deployments.data.migrate import migrate
from deployments.data.postgres import APPLICATION, OWNER, LocalServer
from models import blas

# A token file in the home folder would otherwise switch authentication on in one process only.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ten seconds otherwise, and some tests wait for a measurement.
os.environ.setdefault("RAY_metrics_report_interval_ms", "1000")
# Before any test imports MLX: engines refuse a process whose MLX has no fast BLAS.
blas.preload(1)

# `make test` says the same of the same code each time; `make test-site` looks for further examples.
settings.register_profile("repeatable", derandomize=True)

# For clients of servers in the clear: to read the authorities of the world takes each of them 25 ms.
IN_THE_CLEAR = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

MEDREC = (sys.executable, "-m", "serve_app.cli")
LOCAL = PROJECT_ROOT / "configs" / "local.yaml"
READY_TIMEOUT_S = 420.0
STOP_TIMEOUT_S = 60.0


# To read the tests makes objects by the million that live as long as the process: while it does so,
# and whenever it looks for cycles later, the garbage collector would go through them in vain.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of the files that are shared out to workers the longest come first: none is left over alone."""
    items.sort(key=lambda item: "tests/surface/" not in item.nodeid)


@dataclass
class RunningCell:
    """A cell that `medrec up` started in a process of its own."""

    process: subprocess.Popen[bytes]
    home: Path
    output: Path

    @property
    def state(self) -> state.State:
        """The cell's state file."""
        found = state.read(state.Home(self.home))
        assert found is not None, self.said()
        return found

    @property
    def ports(self) -> Ports:
        """Every port of the cell."""
        return self.state.ports

    @property
    def base_url(self) -> str:
        """HAProxy's address: `/v1/...` is below it."""
        return self.state.base_url

    @property
    def dashboard_url(self) -> str:
        """Ray's dashboard and Serve's REST interface."""
        return self.state.dashboard_url

    @property
    def api_key(self) -> str:
        """The demo key that the first start has made."""
        found: str = json.loads((self.home / "credentials.json").read_text())["api_key"]
        return found

    @property
    def ray_address(self) -> str:
        """For `ray.init(address=...)`, with `environment` set first."""
        return f"127.0.0.1:{self.ports.gcs}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `ray`, `serve` and `medrec` reach this cell."""
        return {**os.environ, **head.environment(state.Home(self.home), self.ports)}

    def said(self) -> str:
        """What `medrec up` has printed."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    def log_tails(self) -> str:
        """The ends of the cell's log files."""
        tails = (
            f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}"
            for log in (self.home / "logs").glob("*.log")
        )
        return "\n".join(tails)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until the cell has announced itself."""
        deadline = time.monotonic() + timeout_s
        while "ready at" not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the cell is not ready\n{self.said()}\n{self.log_tails()}")
            time.sleep(0.2)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, insist that nothing is left. Returns the exit status."""
        before = state.read(state.Home(self.home))
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            medrec("down", home=self.home)
            raise AssertionError(f"medrec up did not stop\n{self.said()}") from None
        if before is not None:
            shutil.rmtree(before.ray_dir, ignore_errors=True)
            assert not members(before.sessions, before.started), self.said()
            assert not local_postgres.local(state.Home(self.home)).pids(), self.said()
        return code


def medrec(
    *arguments: str, home: Path, variables: Mapping[str, str] | None = None, timeout_s: float = 90
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*MEDREC, *arguments],
        cwd=PROJECT_ROOT,
        env={**os.environ, "MEDREC_HOME": str(home), **(variables or {})},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_cell(
    home: Path, config: Path = LOCAL, variables: Mapping[str, str] | None = None
) -> RunningCell:
    """Start `medrec up` on free ports; the caller waits for it and stops it."""
    home.mkdir(parents=True, exist_ok=True)
    output = home / "up.out"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            [*MEDREC, "up", "--config", str(config), "--port-offset", "auto"],
            cwd=PROJECT_ROOT,
            env={**os.environ, "MEDREC_HOME": str(home), **(variables or {})},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    return RunningCell(process, home, output)


REAL_HASHER = passwords._HASHER


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hashes of next to no cost, but for the tests of passwords themselves; cells have real ones."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            passwords, "_HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
        )
        yield


@pytest.fixture(scope="session")
def cell() -> Iterator[RunningCell]:
    """The cell of configs/local.yaml, one for the whole session: leave it as you found it."""
    with tempfile.TemporaryDirectory(prefix="medrec-") as folder:
        running = start_cell(Path(folder))
        try:
            running.wait_ready()
            answer = httpx.get(f"{running.base_url}/health/live", timeout=10)
            assert answer.status_code == 200, running.log_tails()
            yield running
        finally:
            running.stop()


def memory_folder() -> str | None:
    """Linux's folder in memory if there is room: a database is made there 20 times as fast."""
    shared = Path("/dev/shm")
    has_room = shared.is_dir() and shutil.disk_usage(shared).free > 2 * 2**30
    return str(shared) if has_room and os.access(shared, os.W_OK | os.X_OK) else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalServer]:
    """A PostgreSQL as a cell starts it, for the whole session; its database `medrec` is migrated."""
    with tempfile.TemporaryDirectory(prefix="medrec-", dir=memory_folder()) as folder:
        home = state.Home(Path(folder).resolve())
        home.prepare()
        server = local_postgres.local(home)
        server.initialise()
        # Nobody cuts the machine's power here, and the folder may lie in memory.
        # To make a database and to drop it, the server goes through all of its buffers.
        process = server.start({"fsync": "off", "max_wal_size": "128MB", "shared_buffers": "32MB"})
        # A session that is killed closes this pipe, and the server must not outlive it.
        guard = subprocess.Popen(
            ["sh", "-c", f"read -r line; kill -INT {process.pid}"],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            server.wait_ready(process)
            migrate(server.dsn(OWNER))
            yield server
        finally:
            guard.kill()
            guard.communicate()
            left = server.stop()
            process.wait(10)
            server.discard()
        assert not left


@pytest.fixture
def dsns(postgres: LocalServer) -> Iterator[tuple[str, str]]:
    """Connection strings of application and owner for a fresh database with every migration."""
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.dsn(OWNER, "postgres"), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE medrec STRATEGY file_copy')
        # A template's data are copied, its rights are not.
        connection.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        connection.execute(f'GRANT CONNECT ON DATABASE "{name}" TO {APPLICATION}')
        try:
            yield postgres.dsn(APPLICATION, name), postgres.dsn(OWNER, name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
async def database(dsns: tuple[str, str]) -> AsyncIterator[Database]:
    """An open `Database` on it, as the application's role."""
    opened = Database(dsns[0], connections=4)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()
