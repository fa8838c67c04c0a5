"""A site on this machine: every host's programs, started in order, started again when they end, ended.

One process owns them all, as systemd or launchd would on each host; what it does to a host (lose,
freeze, restore) is what drills and fault tests ask of it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from deployments.cell.state import CellError
from deployments.cell.supervised import Supervised
from deployments.site.ground import Ground
from deployments.site.plan import HostPlan, Plan
from deployments.site.programs import Program, programs

Tell = Callable[[str], None]

_POLL_S = 0.1
_KILL_S = 10.0
# What a stop asks to end first: whoever writes, then what it writes to, then what leads there. etcd is
# not asked: its last members would look for a successor for seconds, and a kill loses nothing.
_ENDING = ("keepalived", "steward", "backup", "cell", "patroni", "haproxy")


@dataclass
class Running:
    """One program of one host."""

    host: HostPlan
    program: Program
    supervised: Supervised
    is_held: bool = False

    @property
    def pid(self) -> int | None:
        """Its process while it runs."""
        process = self.supervised.process
        return process.pid if process is not None and process.poll() is None else None


@dataclass
class LocalSite:
    """The hosts of a plan on this machine. For one thread; the caller stops it."""

    plan: Plan
    ground: Ground
    binaries: Mapping[str, str]
    tell: Tell
    # Further variables of a host's programs, by its name.
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    interrupted: Callable[[], bool] = lambda: False
    running: dict[tuple[str, str], Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for host in self.plan.hosts.values():
            for program in programs(self.plan, host, self.binaries):
                supervised = Supervised(f"{host.name}/{program.name}", self._starter(host, program))
                self.running[host.name, program.name] = Running(host, program, supervised)

    def start(self, name: str, hosts: Iterable[str] | None = None) -> None:
        """Start the program of that name on the hosts, or on all that have it."""
        wanted = set(self.plan.hosts if hosts is None else hosts)
        for (host, program), entry in self.running.items():
            if program == name and host in wanted and entry.pid is None:
                entry.is_held = False
                entry.supervised.begin(time.monotonic())

    def look(self) -> None:
        """Start again what has ended and is not held."""
        now = time.monotonic()
        for entry in self.running.values():
            if not entry.is_held:
                entry.supervised.look(now, self.tell)

    def wait(self, what: str, done: Callable[[], bool], timeout_s: float) -> None:
        """Poll until `done`, programs supervised meanwhile.

        Raises `CellError` after `timeout_s`, `InterruptedError` if the operator wants an end.
        """
        deadline = time.monotonic() + timeout_s
        while not done():
            if self.interrupted():
                raise InterruptedError
            if time.monotonic() > deadline:
                raise CellError(f"not within {timeout_s:.0f} s: {what}")
            self.look()
            time.sleep(_POLL_S)

    def process(self, host: str, program: str) -> Running:
        """One program. Raises `CellError` if the host has none of the name."""
        found = self.running.get((host, program))
        if found is None:
            known = ", ".join(sorted({f"{h}/{p}" for h, p in self.running}))
            raise CellError(f"there is no {host}/{program}: {known}")
        return found

    def lose(self, hosts: Sequence[str]) -> float:
        """The hosts lose their power: no process is left, no packet comes back.

        Returns the moment since which none of them answers (monotonic seconds): where a host can be
        cut off that is before its last process has ended.
        """
        is_cut = True
        for host in hosts:
            self._hold(host)
            is_cut &= self.ground.cut(host)
        silent = time.monotonic()
        self._kill(hosts)
        return silent if is_cut else time.monotonic()

    def restore(self, host: str) -> None:
        """The host gets its power back: its programs start in their order, as after a boot."""
        self.ground.mend(host)
        for (name, _), entry in self.running.items():
            if name == host:
                entry.is_held = False
                if entry.pid is None:
                    entry.supervised.begin(time.monotonic())

    def freeze(self, hosts: Sequence[str]) -> None:
        """Every process of the hosts stops, sockets stay open: a machine that hangs."""
        for host in hosts:
            self._hold(host)
            for pid in self.ground.pids(host):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    def thaw(self, host: str) -> None:
        """They go on."""
        for pid in self.ground.pids(host):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        for (name, _), entry in self.running.items():
            if name == host:
                entry.is_held = False

    def kill(self, host: str, program: str) -> None:
        """`kill -9` of one program's whole process tree; it is started again after its pause."""
        entry = self.process(host, program)
        if entry.pid is not None:
            for pid in tree(entry.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def reload(self, host: str, program: str) -> None:
        """Ask a program to read its configuration again."""
        entry = self.process(host, program)
        if entry.pid is None or entry.program.reload_signal is None:
            raise CellError(f"{host}/{program} cannot be reloaded now")
        os.kill(entry.pid, signal.Signals[f"SIG{entry.program.reload_signal}"])

    def obey(self, command: str, arguments: Sequence[Any]) -> Any:
        """What the owner does for another process of this machine. Raises `CellError`, `TypeError`."""
        commands: dict[str, Callable[..., Any]] = {
            "lose": self.lose,
            "restore": self.restore,
            "freeze": self.freeze,
            "thaw": self.thaw,
            "kill": self.kill,
            "reload": self.reload,
            "pids": lambda host: sorted(self.ground.pids(host)),
            "pid": lambda host, program: self.process(host, program).pid,
        }
        if command not in commands:
            raise CellError(f"there is no command {command}: {', '.join(commands)}")
        return commands[command](*arguments)

    def stop(self) -> list[int]:
        """End everything, in order; then by force. Returns the pids left over."""
        for entry in self.running.values():
            entry.is_held = True
        for host in self.plan.hosts:
            with suppress(CellError):
                for pid in self.ground.pids(host):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
        for name in _ENDING:
            self._end([e for (_, program), e in self.running.items() if program == name])
        left = self._kill(list(self.plan.hosts))
        if not left:
            self.ground.remove()
        return sorted(left)

    def _end(self, entries: Sequence[Running]) -> None:
        deadline = time.monotonic() + max((e.program.stop_s for e in entries), default=0.0)
        for entry in entries:
            if entry.pid is not None and entry.supervised.process is not None:
                entry.supervised.process.terminate()
        for entry in entries:
            process = entry.supervised.process
            if process is not None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.1, deadline - time.monotonic()))

    def _hold(self, host: str) -> None:
        for (name, _), entry in self.running.items():
            if name == host:
                entry.is_held = True

    def _kill(self, hosts: Sequence[str]) -> set[int]:
        """Kill every process of the hosts, again for those born meanwhile. The pids left over."""
        deadline = time.monotonic() + _KILL_S
        while True:
            left: set[int] = set()
            for host in hosts:
                with suppress(CellError):
                    left |= {pid for pid in self.ground.pids(host) if _is_alive(pid)}
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for entry in self.running.values():
                if entry.supervised.process is not None:
                    entry.supervised.process.poll()
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(_POLL_S)

    def _starter(self, host: HostPlan, program: Program) -> Callable[[], subprocess.Popen[bytes]]:
        # By `env`, after the account is changed: libfaketime's semaphore is of who loads it first.
        extra = [f"{name}={value}" for name, value in self.environments.get(host.name, {}).items()]
        command = ["env", *extra, *program.command] if extra else program.command
        line = self.ground.command(host.name, command, program.account)

        def start() -> subprocess.Popen[bytes]:
            log = self.log_of(host.name, program.name)
            log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with log.open("ab") as stream:
                return subprocess.Popen(
                    line,
                    cwd=host.project,
                    env={**os.environ, **program.environment},
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )

        return start

    def log_of(self, host: str, program: str) -> Path:
        """Where the output of a program goes."""
        return self.plan.hosts[host].home.logs / f"{program}.out"


def tree(pid: int) -> list[int]:
    """A process and all below it, itself last so that it does not start its children anew."""
    try:
        process = psutil.Process(pid)
        return [*(child.pid for child in process.children(recursive=True)), pid]
    except psutil.Error:
        return []


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
