"""The local site of the benchmark `failover`, in a process of its own, started and ended here."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.reader import PROJECT_ROOT
from deployments.cell.state import CellError, Home
from deployments.edge.decision import Order
from deployments.edge.drills.faults import Need
from deployments.edge.drills.load import Target
from deployments.edge.drills.scene import Scene
from deployments.site import here
from deployments.site.ground import CLIENT, enter, namespaces_are_possible
from serve_app.cli.drill import target_of

UP_TIMEOUT_S, DOWN_TIMEOUT_S = 900.0, 240.0
SITE = PROJECT_ROOT / "configs" / "site-local.yaml"


class SiteProcess:
    """`medrec site up` with what a fault needs; a context manager. Not for two threads."""

    def __init__(self, need: Need, folder: Path, disk_mb: int = 0, *, site: Path = SITE) -> None:
        if not namespaces_are_possible():
            raise CellError("this needs root on Linux: every host is a network namespace")
        self._flags = {
            "fake-time": ["--fake-time"],
            "small-disk": ["--disk-mb", str(disk_mb)],
        }.get(need, [])
        self._home = Home((folder / (need or "plain")).resolve())
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self._scene: Scene | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    @property
    def home(self) -> Home:
        """The home of the site's owner; each host has its own below it."""
        return self._home

    @property
    def scene(self) -> Scene:
        """The running site."""
        assert self._scene is not None
        return self._scene

    @property
    def target(self) -> Target:
        """Where its clients go. Raises `CellError` without a key."""
        found = target_of(self.scene.place)
        if found is None:
            raise CellError("the site has no demo key")
        return found

    def restart(self) -> None:
        """End it and start it anew, where a fault has left it broken."""
        self._stop()
        self._start()

    def _start(self) -> None:
        self._home.path.mkdir(parents=True, exist_ok=True)
        output = self._home.path / "site.out"
        with output.open("wb") as stream:
            self._process = subprocess.Popen(
                # The load and its clock share the processors with what they measure: they go before.
                [*("nice", "-n", "5", sys.executable, "-m", "serve_app.cli", "site", "up"),
                 *self._flags,
                 *("--site", str(self._site))],
                cwd=PROJECT_ROOT,
                env={**os.environ, "MEDREC_HOME": str(self._home.path)},
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + UP_TIMEOUT_S
        while "ready at" not in output.read_text(encoding="utf-8", errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = output.read_text(encoding="utf-8", errors="replace")[-2000:]
                self._stop()
                raise CellError(f"the site did not come up:\n{said}")
            time.sleep(0.5)
        place = here.find(self._home)
        self._scene = Scene(place)
        assert place.namespaces is not None
        enter(place.namespaces.name(CLIENT))
        if self._scene.told()["standing"]["mode"] == "emergency":
            # A series that was broken off has left it so; a site that starts goes on as it stood.
            first = place.plan.site.cells[0]
            self._scene.inside.order(Order("return", first, is_forced=True))

    def _stop(self) -> None:
        if self._scene is not None:
            self._scene.close()
            self._scene = None
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(DOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
