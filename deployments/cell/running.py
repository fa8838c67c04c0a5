"""One cell from start to end: PostgreSQL, Ray, the applications, HAProxy in front; supervision."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.args import ApiArgs
from configs.budgets import scaled
from configs.cell import ApiApplication, CellConfig
from configs.machine import machine
from configs.reader import PROJECT_ROOT, read_yaml
from deployments.cell import head, state, store
from deployments.cell.ports import Ports
from deployments.cell.processes import Recorded
from deployments.cell.serve_api import DeployFailed, ServeApi
from deployments.cell.state import CellError, Charged, Home, State
from deployments.cell.supervised import Supervised
from deployments.edge import haproxy

RAY_START_TIMEOUT_S = 180.0
# Ray gives its own start 30 s, fixed, which a busy machine can miss.
RAY_ATTEMPTS = 3
HAPROXY_READY_TIMEOUT_S = 20.0
_POLL_S = 0.25
_RECORD_EVERY_S = 5.0

Tell = Callable[[str], None]


class Interrupted(Exception):
    """The operator wants the cell to end before it has come up."""


@dataclass
class Cell:
    """The processes of a running cell, owned by this one. Not safe to share among threads."""

    home: Home
    ports: Ports
    config: Path
    site: CellConfig
    tell: Tell
    interrupted: Callable[[], bool]
    # In a site the host's own HAProxy stands before the API replicas, and outlives the cell.
    behind_edge: bool = False
    ray_process: subprocess.Popen[bytes] | None = None
    database: Supervised = field(init=False)
    edge: Supervised = field(init=False)
    state: State | None = None

    def __post_init__(self) -> None:
        self.database = Supervised("PostgreSQL", lambda: store.start(self.home, self.tell))
        self.edge = Supervised("HAProxy", self._start_haproxy)

    def start(self, *, timeout_s: float) -> None:
        """Bring everything up, in order. Raises `CellError`; the caller then calls `stop`."""
        folder = head.ray_dir(self.home)
        head.prepare_ray_dir(folder)
        self.state = state.new(str(self.config.resolve()), self.ports, folder)
        api = self.serve_api()
        try:
            self._bring_up_store()
            self._bring_up_ray(api)
            self.tell("deploying the applications")
            api.deploy(deployable(self.config, self.ports))
            names: list[str] = [app.name for app in self.site.applications]
            api.wait_running(
                names, timeout_s=timeout_s, tell=self.tell, still_alive=self._insist_on_ray
            )
        except DeployFailed as error:
            log = self.home.logs / "deploy.log"
            log.write_text(error.detail + "\n", encoding="utf-8")
            raise CellError(f"{error}\nall of it: {log}") from error
        finally:
            api.close()
            self.record()
        if self._edge() is not None:
            self.tell("starting HAProxy")
            self._wait_haproxy(self.edge.begin(time.monotonic()))
        self.record()

    def serve_api(self) -> ServeApi:
        """Serve's REST interface of this cell."""
        token = self.home.token_file.read_text(encoding="ascii")
        return ServeApi(f"http://127.0.0.1:{self.ports.dashboard}", token)

    def supervise(self, stopped: Callable[[float], bool]) -> None:
        """Keep PostgreSQL and HAProxy running until `stopped(seconds)` says so.

        Raises `CellError` if Ray ends: everything in it is gone.
        """
        recorded = time.monotonic()
        while not stopped(_POLL_S):
            self._insist_on_ray()
            now = time.monotonic()
            # Both are asked: one that keeps failing must not keep the other down.
            again = [part.look(now, self.tell) for part in (self.database, self.edge)]
            if any(again) or now - recorded > _RECORD_EVERY_S:
                self.record()
                recorded = now

    def stop(self) -> list[int]:
        """End every process of the cell. Returns the pids that could not be ended."""
        # The database last: what the applications still write must find it.
        left = [*(state.end_all(self.state) if self.state else []), *store.stop(self.home)]
        for child in (*self._children(), self.database.process):
            if child is not None:
                child.poll()
        if not left:
            state.forget(self.home)
        return left

    def record(self) -> None:
        """Write down which processes exist now."""
        if self.state is None:
            return
        nodes = {"haproxy": ("api", self.edge), "postgres": ("data", self.database)}
        charged = tuple(
            Charged(name, node, process)
            for name, (node, part) in nodes.items()
            if part.process is not None and (process := Recorded.of(part.process.pid))
        )
        sessions = tuple(child.pid for child in self._children())
        self.state = self.state.with_sessions(sessions, charged)
        state.write(self.home, self.state)

    def _bring_up_store(self) -> None:
        """The database first: a replica that starts looks for it."""
        args = store.records_args(self.site)
        if args is None:
            return
        process = None
        if store.is_local(args):
            self.tell("starting PostgreSQL")
            process = self.database.begin(time.monotonic())
            self.record()
        assert self.state is not None
        base_url = self.state.base_url
        store.bring_up(process, args, self.home, base_url, self.tell, self._insist_on_going_on)

    def _bring_up_ray(self, api: ServeApi) -> None:
        self.tell("starting Ray")
        for attempts_left in reversed(range(RAY_ATTEMPTS)):
            self._start_ray()
            try:
                self._wait_ray(api)
                return
            except CellError as error:
                if attempts_left == 0:
                    raise
                self.tell(f"{error}; once more")
                if self.state is not None:
                    state.end_all(self.state)

    def _start_ray(self) -> None:
        line = [*head.command(self.ports, head.ray_dir(self.home)), "--block"]
        # From here on a crash of this process leaves a trace for `down`.
        self.ray_process = self._spawn("ray", head.runnable(line))
        self.record()

    def _wait_ray(self, api: ServeApi) -> None:
        deadline = time.monotonic() + RAY_START_TIMEOUT_S
        while True:
            self._insist_on_ray()
            try:
                api.details()
                return
            except CellError as error:
                if time.monotonic() > deadline:
                    log = self.home.logs / "ray.log"
                    raise CellError(
                        f"Ray did not start within {RAY_START_TIMEOUT_S:g} s; see {log}"
                    ) from error
                time.sleep(_POLL_S)

    def _insist_on_going_on(self) -> None:
        if self.interrupted():
            raise Interrupted

    def _insist_on_ray(self) -> None:
        self._insist_on_going_on()
        if self.ray_process is None or self.ray_process.poll() is not None:
            code = self.ray_process.returncode if self.ray_process else "never started"
            raise CellError(f"Ray ended ({code}); see {self.home.logs / 'ray.log'}")

    def _start_haproxy(self) -> subprocess.Popen[bytes]:
        edge = self._edge()
        assert edge is not None
        files = haproxy.Files(self.home.run / "haproxy", head.ray_dir(self.home))
        config = haproxy.write(edge, files)
        haproxy.check(config)
        return self._spawn("haproxy", haproxy.command(config))

    def _wait_haproxy(self, process: subprocess.Popen[bytes]) -> None:
        files = haproxy.Files(self.home.run / "haproxy", head.ray_dir(self.home))
        deadline = time.monotonic() + HAPROXY_READY_TIMEOUT_S
        while not haproxy.servers_up(files.admin_socket):
            self._insist_on_ray()
            if process.poll() is not None:
                raise CellError(f"HAProxy ended; see {self.home.logs / 'haproxy.log'}")
            if time.monotonic() > deadline:
                raise CellError("HAProxy found no API replica that is ready")
            time.sleep(_POLL_S)

    def _edge(self) -> haproxy.Edge | None:
        args = api_args(self.site)
        if args is None or self.behind_edge:
            return None
        return haproxy.Edge(
            port=self.ports.public,
            ingress_ports=self.ports.ingress,
            application="api",
            request_timeout_s=args.limits.request_timeout_s,
            threads=max(1, min(4, int(scaled(machine())["api"].cpu / 2))),
        )

    def _spawn(self, name: str, line: list[str]) -> subprocess.Popen[bytes]:
        with (self.home.logs / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=head.process_environment(head.environment(self.home, self.ports)),
                # Ctrl-C in the terminal is for this process, which then ends its children in order.
                start_new_session=True,
            )

    def _children(self) -> list[subprocess.Popen[bytes]]:
        """Those that lead a session; PostgreSQL is found by its folder."""
        found = (self.edge.process, self.ray_process)
        return [child for child in found if child is not None]


def deployable(config: Path, ports: Ports) -> dict[str, Any]:
    """The file as `serve deploy` would send it, with this cell's port for Serve's own proxy.

    A model's folder that is a link is the one that it names now: another is another version to Serve.
    """
    raw = read_yaml(config)
    raw["http_options"] = {**raw.get("http_options", {}), "port": ports.serve}
    for app in raw["applications"]:
        for entry in app.get("args", {}).get("language", []):
            folder = PROJECT_ROOT / Path(entry.get("path") or "").expanduser()
            if folder.is_symlink():
                entry["path"] = str(folder.resolve())
    return raw


def api_args(site: CellConfig) -> ApiArgs | None:
    """The arguments of the API application, if the config has one."""
    return next((app.args for app in site.applications if isinstance(app, ApiApplication)), None)
