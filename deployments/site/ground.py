"""Where the hosts of a site on one machine stand: one loopback for all, or a network namespace each.

Namespaces hang on a bridge in a namespace of its own, so that nothing of them is in the machine's own
network, and none has a way out. Needs root and iproute2.
"""

from __future__ import annotations

import ctypes
import hashlib
import ipaddress
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from configs.site import Site
from deployments.cell.state import HOME_VARIABLE, CellError
from deployments.data import postgres_account
from deployments.site.plan import host_names

CLIENT = "client"
_TIMEOUT_S = 15
_CLONE_NEWNET = 0x40000000
_SETPRIV = "setpriv"
_TABLE = "medrec_watch"
# Laid over /etc by `ip netns exec`, which mounts what lies here.
_ETC = Path("/etc/netns")
_WATCH = """
table inet medrec_watch {{
    set outside4 {{ type ipv4_addr; size 1024; flags dynamic; }}
    set outside6 {{ type ipv6_addr; size 1024; flags dynamic; }}
    chain out {{
        type filter hook output priority -10; policy accept;
        ip daddr {{ 127.0.0.0/8, {network}, 224.0.0.0/4, 255.255.255.255 }} accept
        ip6 daddr {{ ::1, fe80::/10, ff00::/8 }} accept
        add @outside4 {{ ip daddr }}
        add @outside6 {{ ip6 daddr }}
    }}
}}
"""


class Ground(Protocol):
    """Lets programs run as if each host were a machine."""

    def prepare(self) -> None:
        """Make what the hosts stand on. Raises `CellError`."""

    def command(self, host: str, line: Sequence[str], account: str) -> list[str]:
        """The command line that runs `line` on `host`, as `account` (medrec, postgres or root)."""

    def pids(self, host: str) -> set[int]:
        """Every process of the host."""

    def guard(self, host: str, rules: Iterable[Path]) -> None:
        """Put firewall rules into force on the host. Raises `CellError`."""

    def cut(self, host: str) -> bool:
        """Take the host off the network, as if its plug was pulled. False where there is no plug."""

    def mend(self, host: str) -> None:
        """Put it back."""

    def remove(self) -> None:
        """Take away what `prepare` made."""


def namespaces_are_possible() -> bool:
    """Whether this process can make network namespaces."""
    return platform.system() == "Linux" and os.geteuid() == 0 and shutil.which("ip") is not None


class Loopback:
    """All hosts on 127.0.0.1; their processes are told apart by their homes."""

    def __init__(self, homes: Mapping[str, Path]) -> None:
        self._homes = {name: str(home.resolve()) for name, home in homes.items()}

    def prepare(self) -> None:
        """Nothing to make."""

    def command(self, host: str, line: Sequence[str], account: str) -> list[str]:
        """The line itself, by `setpriv` where it belongs to PostgreSQL's account."""
        return [*_as_account(account), *line]

    def pids(self, host: str) -> set[int]:
        """Processes that stand in the host's home or were given it, and all below them."""
        home, found = self._homes[host], set()
        parents: dict[int, int] = {}
        for process in psutil.process_iter():
            try:
                parents[process.pid] = process.ppid()
                inside = process.cwd().startswith(home)
                if inside or process.environ().get(HOME_VARIABLE) == home:
                    found.add(process.pid)
            except psutil.Error:
                continue
        while below := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= below
        return found

    def guard(self, host: str, rules: Iterable[Path]) -> None:
        """A loopback is the machine's own: nothing is done to it."""

    def cut(self, host: str) -> bool:
        """A loopback cannot be unplugged: the host's processes end, and their ports refuse."""
        return False

    def mend(self, host: str) -> None:
        """Nothing was cut."""

    def remove(self) -> None:
        """Nothing was made."""


class Namespaces:
    """A namespace for each host, one for a client, one for the bridge between them."""

    def __init__(self, site: Site, folder: Path) -> None:
        digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:5]
        self._prefix = f"mr{digest}"
        self._site = site
        self._hosts = [*site.members, CLIENT]

    def name(self, host: str) -> str:
        """The namespace of a host."""
        return f"{self._prefix}-{host}"

    def prepare(self) -> None:
        """Make bridge and namespaces; what an earlier run left goes first. Raises `CellError`."""
        self.remove()
        lan = self.name("lan")
        _ip("netns", "add", lan)
        _ip("-n", lan, "link", "add", "lan", "type", "bridge")
        _ip("-n", lan, "link", "set", "lan", "up")
        network = self.network
        for index, host in enumerate(self._hosts):
            inside, port = self.name(host), f"p{index}"
            _ip("netns", "add", inside)
            _ip(
                "-n",
                lan,
                "link",
                "add",
                port,
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                inside,
            )
            _ip("-n", lan, "link", "set", port, "master", "lan", "up")
            _ip(
                "-n",
                inside,
                "addr",
                "add",
                f"{self._address(host)}/{network.prefixlen}",
                "dev",
                "eth0",
            )
            _ip("-n", inside, "link", "set", "lo", "up")
            _ip("-n", inside, "link", "set", "eth0", "up")
            self._watch(host)
            self._name(host)

    def _name(self, host: str) -> None:
        """Let the host know all others by name, as /etc/hosts of a real one does (`host_names`)."""
        folder = _ETC / self.name(host)
        folder.mkdir(parents=True, exist_ok=True)
        own = Path("/etc/hosts").read_text(encoding="utf-8")
        (folder / "hosts").write_text(own + host_names(self._site), encoding="utf-8")

    def _watch(self, host: str) -> None:
        """Let whatever is meant for outside the site end in the host itself, and keep its address.

        Without any route nothing would be sent, and so nothing seen.
        """
        inside = self.name(host)
        for version in ("-4", "-6"):
            _ip("-n", inside, version, "route", "add", "default", "dev", "lo")
        rules = _WATCH.format(network=self.network)
        _run(["ip", "netns", "exec", inside, "nft", "-f", "-"], rules)

    def strayed(self, host: str) -> list[str]:
        """Addresses outside the site that the host has sent anything to since it was made."""
        line = [
            "ip",
            "netns",
            "exec",
            self.name(host),
            "nft",
            "-j",
            "list",
            "table",
            "inet",
            _TABLE,
        ]
        found: list[str] = []
        for entry in json.loads(_run(line))["nftables"]:
            for element in entry.get("set", {}).get("elem", ()):
                found.append(str(element["elem"]["val"] if isinstance(element, dict) else element))
        return found

    @property
    def network(self) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
        """The network of all hosts: that of the shared address, or a /24 around the first host."""
        shared = self._site.edge.address
        first = next(iter(self._site.members.values())).address
        return ipaddress.ip_interface(shared or f"{first}/24").network

    def _address(self, host: str) -> str:
        if host != CLIENT:
            return self._site.members[host].address
        used = {h.address for h in self._site.hosts.values()}
        free = (str(a) for a in self.network.hosts() if int(a) - int(self.network[0]) >= 100)
        return next(address for address in free if address not in used)

    def command(self, host: str, line: Sequence[str], account: str) -> list[str]:
        """`ip netns exec` leaves no process of its own between."""
        return ["ip", "netns", "exec", self.name(host), *_as_account(account), *line]

    def pids(self, host: str) -> set[int]:
        """Whatever runs in the namespace."""
        return {int(line) for line in _ip("netns", "pids", self.name(host)).split()}

    def guard(self, host: str, rules: Iterable[Path]) -> None:
        """`nft -f` in the namespace: the rules that the host would have."""
        for file in rules:
            _ip("netns", "exec", self.name(host), "nft", "-f", str(file))

    def cut(self, host: str) -> bool:
        """The bridge's port goes down: silence, as of a machine without power."""
        _ip("-n", self.name("lan"), "link", "set", f"p{self._hosts.index(host)}", "down")
        return True

    def mend(self, host: str) -> None:
        """The port goes up again."""
        _ip("-n", self.name("lan"), "link", "set", f"p{self._hosts.index(host)}", "up")

    def remove(self) -> None:
        """Remove every namespace of this site."""
        there = {line.split()[0] for line in _ip("netns", "list").splitlines() if line.strip()}
        for name in sorted(there):
            if name.startswith(f"{self._prefix}-"):
                _ip("netns", "del", name)
        for folder in _ETC.glob(f"{self._prefix}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def enter(namespace: str) -> None:
    """Put the calling thread, and what it starts, into a network namespace. Raises `CellError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        handle = os.open(f"/var/run/netns/{namespace}", os.O_RDONLY)
    except OSError as error:
        raise CellError(f"there is no network namespace {namespace}") from error
    try:
        if libc.setns(handle, _CLONE_NEWNET) != 0:
            raise CellError(f"{namespace} cannot be entered: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(handle)


def _as_account(account: str) -> list[str]:
    """Words before a command that run it as PostgreSQL's account; none where that is our own."""
    identity = postgres_account.identity() if account == "postgres" else {}
    if not identity:
        return []
    return [
        _SETPRIV,
        f"--reuid={identity['user']}",
        f"--regid={identity['group']}",
        "--clear-groups",
        "--",
    ]


def _ip(*words: str) -> str:
    return _run(["ip", *words])


def _run(line: Sequence[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(
            line, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CellError(f"{' '.join(line)}: {error}") from error
    if done.returncode != 0:
        raise CellError(f"{' '.join(line)}: {done.stderr.strip()}")
    return done.stdout
