"""What a cell leaves on disk while it runs, so that `down`, `status` and the memory guard find it.

`MEDREC_HOME` (default: `.medrec` in the project) holds `run/state.json`, `run/lock`, `auth_token`
and `logs/`. Nothing here is about patients.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import IO, Any

from configs.reader import PROJECT_ROOT
from deployments.cell import processes
from deployments.cell.errors import CellError as CellError
from deployments.cell.ports import Ports
from deployments.cell.processes import Recorded

HOME_VARIABLE = "MEDREC_HOME"
STOP_GRACE_S = 4.0
PUBLIC_URL_VARIABLE = "MEDREC_PUBLIC_URL"


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one cell's files."""

    path: Path

    @property
    def digest(self) -> str:
        """Eight characters that tell this home's folders outside it from another's."""
        return hashlib.sha256(str(self.path).encode()).hexdigest()[:8]

    @property
    def run(self) -> Path:
        """Files that mean something only while the cell runs."""
        return self.path / "run"

    @property
    def state_file(self) -> Path:
        """Where the state is written."""
        return self.run / "state.json"

    @property
    def token_file(self) -> Path:
        """Ray's authentication token, readable by its owner only."""
        return self.path / "auth_token"

    @property
    def postgres(self) -> Path:
        """PostgreSQL's data, or the folder above them where Patroni keeps them."""
        return self.path / "postgres"

    @property
    def logs(self) -> Path:
        """Output of the processes that `up` starts itself; Ray's own logs lie in its folder."""
        return self.path / "logs"

    def prepare(self) -> None:
        """Create the folders, for the owner only, and the token if there is none."""
        for folder in (self.path, self.run, self.logs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.token_file.exists():
            handle = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.write(secrets.token_hex(32))


@dataclass(frozen=True, slots=True)
class Charged:
    """A process outside Ray whose memory counts against a virtual node's budget."""

    name: str
    node: str
    process: Recorded


@dataclass(frozen=True, slots=True)
class State:
    """A running cell."""

    owner: Recorded | None
    config: str
    started: float
    ports: Ports
    ray_dir: str
    charged: tuple[Charged, ...] = ()
    processes: tuple[Recorded, ...] = ()
    sessions: tuple[int, ...] = ()

    @property
    def is_alive(self) -> bool:
        """Whether any of its processes runs."""
        return bool(self.running())

    def running(self) -> set[Recorded]:
        """Its processes that run now: those of its sessions, and those charged to a node."""
        charged = {entry.process for entry in self.charged if entry.process.process()}
        return processes.members(self.sessions, self.started) | charged

    @property
    def base_url(self) -> str:
        """Where clients reach the cell."""
        return f"http://127.0.0.1:{self.ports.public}"

    @property
    def dashboard_url(self) -> str:
        """Where Ray's dashboard and Serve's REST interface listen."""
        return f"http://127.0.0.1:{self.ports.dashboard}"

    def with_sessions(self, sessions: tuple[int, ...], charged: tuple[Charged, ...]) -> State:
        """The state with further sessions, and with the processes that run in them now."""
        every = tuple(sorted({*self.sessions, *sessions}))
        later = replace(self, sessions=every, charged=charged)
        return replace(later, processes=tuple(sorted(later.running(), key=lambda entry: entry.pid)))


def home(environment: Mapping[str, str] = os.environ) -> Home:
    """The home that the environment chooses."""
    return Home(Path(environment.get(HOME_VARIABLE) or PROJECT_ROOT / ".medrec").resolve())


def new(config: str, ports: Ports, ray_dir: Path, owned: bool = True) -> State:
    """The state of a cell that starts now; `owned` by this process unless it outlives it."""
    owner = Recorded.of(os.getpid()) if owned else None
    return State(
        owner=owner,
        config=config,
        started=time.time(),
        ports=ports,
        ray_dir=str(ray_dir),
    )


def end_all(found: State) -> list[int]:
    """End every process of a cell but its database; twice, for those born meanwhile.

    Returns the pids left over.
    """
    left: list[int] = []
    for grace_s in (STOP_GRACE_S, 1.0):
        left = processes.end(processes.members(found.sessions, found.started), grace_s=grace_s)
    return left


def write(at: Home, state: State) -> None:
    """Replace the state file in one step, so that no reader sees half of it."""
    draft = at.state_file.with_suffix(".tmp")
    draft.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
    draft.replace(at.state_file)


def read(at: Home) -> State | None:
    """The state on disk, or None; what it names need not be alive any more."""
    try:
        raw = json.loads(at.state_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CellError(f"{at.state_file} cannot be read: {error}") from error
    return _parsed(raw)


def forget(at: Home) -> None:
    """Remove the state file."""
    at.state_file.unlink(missing_ok=True)


@contextmanager
def lock(at: Home) -> Iterator[IO[str]]:
    """Hold the home for this process. Raises `CellError` if another one holds it."""
    stream = (at.run / "lock").open("a+", encoding="ascii")
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CellError(_already(read(at), at)) from error
        yield stream
    finally:
        stream.close()


def refuse_if_running(at: Home) -> None:
    """Raise `CellError` if processes of an earlier cell are still alive."""
    state = read(at)
    if state is None:
        return
    running = state.running()
    if running and state.owner is None:
        raise CellError(_already(state, at))
    if running:
        pids = ", ".join(str(entry.pid) for entry in list(running)[:8])
        raise CellError(f"an earlier cell left processes behind ({pids}): run medrec down first")


def _already(state: State | None, at: Home) -> str:
    if state is None:
        return f"another medrec is starting a cell in {at.path}"
    pid = state.owner.pid if state.owner else state.processes[0].pid if state.processes else 0
    return f"a cell already runs (pid {pid}) at {state.base_url}: medrec status, medrec down"


def _parsed(raw: dict[str, Any]) -> State:
    values = {entry.name: raw[entry.name] for entry in fields(State)}
    values["owner"] = Recorded(**raw["owner"]) if raw["owner"] else None
    values["ports"] = Ports(**raw["ports"])
    values["sessions"] = tuple(raw["sessions"])
    values["processes"] = tuple(Recorded(**entry) for entry in raw["processes"])
    values["charged"] = tuple(
        Charged(entry["name"], entry["node"], Recorded(**entry["process"]))
        for entry in raw["charged"]
    )
    return State(**values)
