"""Where a drill takes place: a running local site, who plays which part in it now, and its strings."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from deployments.cell.state import CellError
from deployments.edge.decision import Order
from deployments.edge.primary import WELL, leader_of, standbys_of
from deployments.site import control
from deployments.site.here import Place
from deployments.site.inside import Inside
from deployments.site.plan import HostPlan, Plan

_TIMEOUT_S = 15
_POLL_S = 0.25
# Some looks of every steward, at the database's too (deployments/edge/looking.py).
STEADY_S = 6.0


@dataclass(frozen=True, slots=True)
class Cast:
    """The parts: names of hosts. `standby` is PostgreSQL's, None where there is none."""

    serving: str
    other: str | None
    primary: str
    standby: str | None
    active_edge: str
    other_edge: str | None


class Scene:
    """A local site as a drill handles it. The caller closes it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.inside: Inside = place.inside()
        self._socket = place.folder / control.SOCKET
        self._turn = 0

    def close(self) -> None:
        """Give up the way in."""
        self.inside.close()

    @property
    def plan(self) -> Plan:
        """The site's plan."""
        return self.place.plan

    @property
    def is_local(self) -> bool:
        """Whether all of the site is on this machine, and faults can be made for real."""
        return self.plan.ground != "hosts"

    @property
    def is_apart(self) -> bool:
        """Whether every host has a network of its own, which faults of the network need."""
        return self.place.namespaces is not None

    def ask(self, command: str, *arguments: Any) -> Any:
        """Have the site's owner do something. Raises `CellError`."""
        return control.ask(self._socket, command, *arguments)

    def told(self) -> dict[str, Any]:
        """What the active edge's steward tells; any edge's where none is active. Raises `CellError`."""
        statuses = [s for s in self.inside.statuses().values() if s is not None]
        if not statuses:
            # The edge that is asked from may be the one that is lost.
            for edge in self.plan.edges[1:]:
                again = self.place.inside(edge)
                try:
                    statuses = [s for s in again.statuses().values() if s is not None]
                finally:
                    again.close()
                if statuses:
                    break
        if not statuses:
            raise CellError("no edge answers")
        active = [status for status in statuses if status["active"]]
        found: dict[str, Any] = (active or statuses)[0]
        return found

    def cast(self) -> Cast:
        """Who plays which part now. Raises `CellError` where a part is missing."""
        told = self.told()
        members = self.inside.cluster()
        leader = leader_of(members)
        followers = standbys_of(members)
        serving = told["standing"]["serving"]
        if leader is None or not serving:
            raise CellError("the site has no primary, or nobody serves")
        cells = self.plan.site.cells
        edges = [edge.name for edge in self.plan.edges]
        return Cast(
            serving=serving[0],
            other=next((c for c in cells if c != serving[0]), None),
            primary=leader,
            standby=followers[0] if followers else None,
            active_edge=told["edge"],
            other_edge=next((e for e in edges if e != told["edge"]), None),
        )

    def ailments(self) -> list[str]:
        """What keeps the site from full redundancy, a sentence each; empty: it has it."""
        try:
            statuses = self.inside.statuses()
            told = self.told()
        except CellError as error:
            return [str(error)]
        found = [f"the steward of {e} does not answer" for e, s in statuses.items() if s is None]
        if told["standing"]["mode"] != "normal":
            found.append("this is an emergency")
        for cell in told["cells"]:
            if not cell["is_up"]:
                found.append(f"{cell['name']} does not answer")
            found += [f"{cell['name']}: {fault}" for fault in cell["faults"]]
        members = {n: m for n, m in told["database"].items() if m.get("state") in WELL}
        if len(self.plan.cells) > 1 and not standbys_of(members):
            found.append("PostgreSQL has no synchronous standby")
        if leader_of(members) is None:
            found.append("PostgreSQL has no primary")
        found += [f"etcd of {host} is not well" for host, well in told["etcd"].items() if not well]
        if (cloud := told["cloud"]) is not None:
            found += _cloud_ailments(cloud, self.plan.site.emergency.copy_limit_s)
        return found

    def wait_whole(self, timeout_s: float) -> float | None:
        """Wait for full redundancy that stays for `STEADY_S`; the seconds until it began.

        None if it did not come in time. The stewards tell of a change a look later: the first answer
        after one is of before it.
        """
        began, turn = time.monotonic(), self._turn
        since: float | None = None
        while (now := time.monotonic()) - began < timeout_s:
            if self.ailments():
                since = None
            elif since is None:
                since = now
            elif now - since >= STEADY_S:
                return since - began
            self._pause(turn)
        return None

    def come_home(self, timeout_s: float) -> None:
        """Let the site's primary serve, and hold the database's primary: as a run finds things.

        Then waits until the site is whole, if it moved anything. Raises `CellError` where that is
        refused or takes longer.
        """
        first, *others = self.plan.site.cells
        told = self.told()
        is_home = told["standing"]["serving"] == [first] and not told["standing"]["retired"]
        if not is_home:
            self.inside.order(Order("serve", first))
        members = self.inside.cluster()
        leader = leader_of(members)
        if others and first in standbys_of(members) and leader is not None:
            self.inside.switch_over(leader, first)
            is_home = False
        if not is_home and self.wait_whole(timeout_s) is None:
            raise CellError(
                "the site is not whole after the failback: " + "; ".join(self.ailments())
            )

    def wait(self, done: Callable[[], bool], timeout_s: float) -> float | None:
        """Poll until `done`; the seconds that it took, None after `timeout_s`."""
        began, turn = time.monotonic(), self._turn
        while time.monotonic() - began < timeout_s:
            if done():
                return time.monotonic() - began
            self._pause(turn)
        return None

    def interrupt(self) -> None:
        """End what waits in another thread now, with a `CellError`; who begins to wait later may."""
        self._turn += 1

    def _pause(self, turn: int) -> None:
        time.sleep(_POLL_S)
        if self._turn != turn:
            raise CellError("the drill was interrupted")

    def host(self, name: str) -> HostPlan:
        """The host of that name."""
        return self.plan.hosts[name]

    def pids(self, host: str, matching: Callable[[psutil.Process], bool]) -> list[int]:
        """Processes of a host that match."""
        found = []
        for pid in self.ask("pids", host):
            with suppress(psutil.Error):
                if matching(psutil.Process(pid)):
                    found.append(pid)
        return found

    def replicas(self, host: str, deployment: str) -> list[int]:
        """Processes of a deployment's replicas on a host: Ray names each after its actor."""
        wanted = f"ray::ServeReplica:{deployment}"
        return self.pids(host, lambda p: " ".join(p.cmdline()).startswith(wanted))

    def postgres(self, host: str) -> list[int]:
        """PostgreSQL's processes on a host, the postmaster first."""
        found = []
        for pid in self.pids(host, lambda p: p.name() == "postgres"):
            with suppress(psutil.Error):  # some live for a moment only
                found.append((psutil.Process(pid).create_time(), pid))
        return [pid for _, pid in sorted(found)]

    def on(self, host: str, *line: str) -> None:
        """Run a command in a host's network. Raises `CellError`."""
        namespaces = self.place.namespaces
        whole = list(line) if namespaces is None else namespaces.command(host, line, "root")
        done = subprocess.run(
            whole, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise CellError(f"{' '.join(line)} on {host}: {done.stderr.strip()}")


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _cloud_ailments(cloud: dict[str, Any], limit_s: float) -> list[str]:
    if not cloud["is_up"]:
        return ["the emergency cell does not answer"]
    age_s = cloud["copy_age_s"]
    if age_s is None:
        return ["the emergency cell does not say how old its copy is"]
    return [f"the emergency copy is {age_s:.0f} s old"] if age_s > limit_s else []
