"""`medrec site up` and `down`: a whole site on this machine, in the foreground of one process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.markup import escape

from configs.site import load_site
from deployments.cell import state
from deployments.cell.ports import MAX_OFFSET, OFFSET_STEP, Ports, is_free
from deployments.cell.state import HOME_VARIABLE, CellError
from deployments.site import control, here
from deployments.site.disks import small_disks, undo_disks
from deployments.site.fake_time import fake_time_of
from deployments.site.ground import Ground, Loopback, Namespaces, namespaces_are_possible
from deployments.site.local import BringUp
from deployments.site.plan import Plan, on_this_machine, program
from deployments.site.ports import BLOCK, LOOPBACK_BASE
from deployments.site.running import LocalSite
from serve_app.cli.up import signals

console = Console(highlight=False, soft_wrap=True)

DOWN_TIMEOUT_S = 180.0
_LOOK_S = 0.1
# What HAProxy takes: it adds a suffix while it binds.
_SOCKET_BYTES = 97


def run(site_file: Path, *, loopback: bool, fake_time: bool, disk_mb: int) -> None:
    """The whole life of a local site. Raises `ConfigError` and `CellError`."""
    site = load_site(site_file)
    home = state.home()
    home.prepare()
    folder = here.local_folder(home)
    apart = namespaces_are_possible() and not loopback
    base, offset = (LOOPBACK_BASE, 0) if apart else _free(len(site.members))
    kind = "namespaces" if apart else "loopback"
    plan = on_this_machine(site, folder, kind, base=base, cell_offset=offset)  # type: ignore[arg-type]
    if max(len(os.fsencode(host.haproxy_socket)) for host in plan.hosts.values()) > _SOCKET_BYTES:
        raise CellError(
            f"{folder} is too long for the paths of sockets: choose a shorter {HOME_VARIABLE}"
        )
    ground: Ground = (
        Namespaces(site, folder)
        if apart
        else Loopback({name: host.home.path for name, host in plan.hosts.items()})
    )
    binaries = {name: program(name) for name in _needed(plan)}
    with state.lock(home), signals() as stop:
        clocks = fake_time_of(plan) if fake_time else {}
        running = LocalSite(plan, ground, binaries, _tell, clocks)
        for host in plan.hosts.values():
            host.home.prepare()
        small_disks(plan, disk_mb)
        owner = _Owner(running, folder, stop.is_set)
        try:
            bring_up = BringUp(running, site_file, folder, base, offset)
            running.interrupted = owner.wants_an_end
            bring_up.run()
            _announce(plan, ground)
            owner.is_up = True
            while not owner.wants_an_end(_LOOK_S):
                running.look()
        except InterruptedError:
            pass
        finally:
            owner.close()
            _end(running)
            undo_disks(plan)
    console.print("stopped")


def stop() -> None:
    """Ask the site's own process to end, and wait for it. Raises `CellError`."""
    folder = here.local_folder(state.home())
    try:
        pid = int(control.ask(folder / control.SOCKET, "stop"))
    except CellError:
        console.print(f"no site runs in {folder}")
        return
    deadline = time.monotonic() + DOWN_TIMEOUT_S
    while (folder / control.SOCKET).exists() or _is_alive(pid):
        if time.monotonic() > deadline:
            raise CellError(f"the site of pid {pid} does not end")
        time.sleep(0.2)
    console.print("stopped")


class _Owner:
    """Answers other processes of this machine, from the first program on; the caller closes it."""

    def __init__(self, running: LocalSite, folder: Path, signalled: Callable[[], bool]) -> None:
        self.is_up = False
        self._running, self._signalled = running, signalled
        self._is_ending = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._control = control.Control(folder / control.SOCKET, self._answer)

    def wants_an_end(self, timeout_s: float = 0.001) -> bool:
        """Answer who asks within `timeout_s`; whether the site is to end, by a word or a signal."""
        if not self._is_ending:
            self._control.serve_once(timeout_s)
        return self._is_ending or self._signalled()

    def close(self) -> None:
        """Answer nobody any more."""
        self._control.close()

    def _answer(self, command: str, arguments: list[Any]) -> Any:
        if command == "stop":
            self._is_ending = True
            return os.getpid()
        if not self.is_up:
            raise CellError("the site is still coming up")
        return self._running.obey(command, arguments)


def _end(running: LocalSite) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _tell("stopping")
    if left := running.stop():
        raise CellError(f"processes outlived SIGKILL: {', '.join(map(str, left))}")


def _needed(plan: Plan) -> set[str]:
    names = {"haproxy", "etcd"}
    if plan.ground == "namespaces" and plan.site.edge.address is not None:
        names.add("keepalived")
    return names


def _free(hosts: int) -> tuple[int, int]:
    """A base of ports, and an offset for the first cell, at which everything is free now."""
    for base in range(LOOPBACK_BASE, LOOPBACK_BASE + 800, BLOCK * 10):
        if all(is_free(port) for port in range(base, base + BLOCK * hosts)):
            break
    else:
        raise CellError("no block of ports is free for a site: stop another one")
    for offset in range(0, MAX_OFFSET - OFFSET_STEP * hosts + 1, OFFSET_STEP):
        cells = [Ports().shifted(offset + OFFSET_STEP * index) for index in range(hosts)]
        if all(is_free(port) for ports in cells for _, port in ports.singles()):
            return base, offset
    raise CellError("no port offsets are free for the cells of a site: stop another cell")


def _announce(plan: Plan, ground: Ground) -> None:
    ca = plan.edges[0].tls / "ca.crt"
    port = plan.edges[0].ports.https
    name = plan.site.edge.public_name
    prefix = f"ip netns exec {ground.name('client')} " if isinstance(ground, Namespaces) else ""
    resolve = f"--resolve {name}:{port}:{plan.public_address}"
    console.print(f"[bold green]ready[/] at [bold]{plan.public_url}[/] ({plan.public_address})")
    console.print(f"  {prefix}curl -s --cacert {ca} {resolve} {plan.public_url}/v1/mode")
    console.print(f"  credentials: {plan.cells[0].home.path / 'credentials.json'}")
    console.print(
        "  medrec site status, medrec drill failover; Ctrl-C or medrec site down stops it."
    )


def _tell(words: str) -> None:
    console.print(escape(words))


def _is_alive(pid: int) -> bool:
    try:
        # Nobody may have asked yet how it ended.
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
