"""One cell from start to end: Ray as a child, the applications, HAProxy in front, supervision."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.args import ApiArgs
from configs.budgets import scaled
from configs.machine import machine
from configs.reader import read_yaml
from configs.site import ApiApplication, SiteConfig
from deployments.cell import head, processes, state
from deployments.cell.ports import Ports
from deployments.cell.processes import Recorded
from deployments.cell.serve_api import DeployFailed, ServeApi
from deployments.cell.state import CellError, Charged, Home, State
from deployments.edge import haproxy

RAY_START_TIMEOUT_S = 180.0
# Ray gives its own start 30 s, fixed, which a busy machine can miss.
RAY_ATTEMPTS = 3
HAPROXY_READY_TIMEOUT_S = 20.0
STOP_GRACE_S = 4.0
_POLL_S = 0.25
_RECORD_EVERY_S = 5.0
_BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 5.0)
_STEADY_S = 60.0

Tell = Callable[[str], None]


class Interrupted(Exception):
    """The operator wants the cell to end before it has come up."""


@dataclass
class Cell:
    """The processes of a running cell, owned by this one. Not safe to share among threads."""

    home: Home
    ports: Ports
    config: Path
    site: SiteConfig
    tell: Tell
    interrupted: Callable[[], bool]
    ray_process: subprocess.Popen[bytes] | None = None
    haproxy_process: subprocess.Popen[bytes] | None = None
    state: State | None = None

    def start(self, *, timeout_s: float) -> None:
        """Bring everything up, in order. Raises `CellError`; the caller then calls `stop`."""
        api = self.serve_api()
        try:
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
            self._start_haproxy()
            self._wait_haproxy()
        self.record()

    def serve_api(self) -> ServeApi:
        """Serve's REST interface of this cell."""
        token = self.home.token_file.read_text(encoding="ascii")
        return ServeApi(f"http://127.0.0.1:{self.ports.dashboard}", token)

    def supervise(self, stopped: Callable[[float], bool]) -> None:
        """Keep HAProxy running until `stopped(seconds)` says so. Raises `CellError` if Ray ends."""
        failures, up_since, recorded = 0, time.monotonic(), time.monotonic()
        while not stopped(_POLL_S):
            self._insist_on_ray()
            if time.monotonic() - recorded > _RECORD_EVERY_S:
                self.record()
                recorded = time.monotonic()
            if self.haproxy_process is None or self.haproxy_process.poll() is None:
                continue
            if time.monotonic() - up_since > _STEADY_S:
                failures = 0
            pause_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
            self.tell(
                f"HAProxy ended ({self.haproxy_process.returncode}); restarting in {pause_s:g} s"
            )
            if stopped(pause_s):
                return
            failures, up_since = failures + 1, time.monotonic()
            self._start_haproxy()
            self.record()

    def stop(self) -> list[int]:
        """End every process of the cell. Returns the pids that could not be ended."""
        left = end_all(self.state) if self.state else []
        for child in self._children():
            child.poll()
        if not left:
            state.forget(self.home)
        return left

    def record(self) -> None:
        """Write down which processes exist now."""
        if self.state is None:
            return
        front = Recorded.of(self.haproxy_process.pid) if self.haproxy_process else None
        charged = (Charged("haproxy", "api", front),) if front else ()
        sessions = tuple(child.pid for child in self._children())
        self.state = self.state.with_sessions(sessions, charged)
        state.write(self.home, self.state)

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
                    end_all(self.state)

    def _start_ray(self) -> None:
        folder = head.ray_dir(self.home)
        head.prepare_ray_dir(folder)
        self.state = new_state(str(self.config.resolve()), self.ports, folder)
        state.write(self.home, self.state)
        line = [*head.command(self.ports, folder), "--block"]
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

    def _insist_on_ray(self) -> None:
        if self.interrupted():
            raise Interrupted
        if self.ray_process is None or self.ray_process.poll() is not None:
            code = self.ray_process.returncode if self.ray_process else "never started"
            raise CellError(f"Ray ended ({code}); see {self.home.logs / 'ray.log'}")

    def _start_haproxy(self) -> None:
        edge = self._edge()
        assert edge is not None
        files = haproxy.Files(self.home.run / "haproxy", head.ray_dir(self.home))
        config = haproxy.write(edge, files)
        haproxy.check(config)
        self.haproxy_process = self._spawn("haproxy", haproxy.command(config))

    def _wait_haproxy(self) -> None:
        assert self.haproxy_process is not None
        files = haproxy.Files(self.home.run / "haproxy", head.ray_dir(self.home))
        deadline = time.monotonic() + HAPROXY_READY_TIMEOUT_S
        while not haproxy.servers_up(files.admin_socket):
            self._insist_on_ray()
            if self.haproxy_process.poll() is not None:
                raise CellError(f"HAProxy ended; see {self.home.logs / 'haproxy.log'}")
            if time.monotonic() > deadline:
                raise CellError("HAProxy found no API replica that is ready")
            time.sleep(_POLL_S)

    def _edge(self) -> haproxy.Edge | None:
        args = api_args(self.site)
        if args is None:
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
        return [child for child in (self.haproxy_process, self.ray_process) if child is not None]


def end_all(found: State) -> list[int]:
    """End every process of a cell; twice, for those born meanwhile. Returns the pids left over."""
    left: list[int] = []
    for grace_s in (STOP_GRACE_S, 1.0):
        left = processes.end(processes.members(found.sessions, found.started), grace_s=grace_s)
    return left


def deployable(config: Path, ports: Ports) -> dict[str, Any]:
    """The file as `serve deploy` would send it, with this cell's port for Serve's own proxy."""
    raw = read_yaml(config)
    raw["http_options"] = {**raw.get("http_options", {}), "port": ports.serve}
    return raw


def api_args(site: SiteConfig) -> ApiArgs | None:
    """The arguments of the API application, if the config has one."""
    return next((app.args for app in site.applications if isinstance(app, ApiApplication)), None)


def new_state(config: str, ports: Ports, ray_dir: Path, owned: bool = True) -> State:
    """The state of a cell that starts now; `owned` by this process unless it outlives it."""
    owner = Recorded.of(os.getpid()) if owned else None
    return State(
        owner=owner,
        config=config,
        started=time.time(),
        ports=ports,
        ray_dir=str(ray_dir),
    )
