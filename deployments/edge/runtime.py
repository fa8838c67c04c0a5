"""HAProxy's runtime interface: what it thinks of its servers, and how it is told otherwise."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deployments.edge.decision import ServerState

_TIMEOUT_S = 2.0
_MOST_BYTES = 4 * 2**20
# Writes, chats and WebSockets: whether a cell is up is read here.
OTHERS = "others"
OF_CELLS = ("at_once", "reads", OTHERS)
OF_CLOUD = ("emergency",)
# The backends that clients' requests go to; others have servers of the same hosts.
BACKENDS = (*OF_CELLS, *OF_CLOUD)
# The same cell once more, without checks, for the moments in which no checked one is up.
UNCHECKED = ".unchecked"
# HAProxy management guide, 9.3, `show servers state`: operational and administrative state.
_RUNNING = {"1", "2"}
# Bit 0x04 only says that the configuration had it begin in maintenance.
_MAINTENANCE, _DRAIN = 0x01 | 0x02, 0x08 | 0x10


class RuntimeUnavailable(Exception):
    """HAProxy does not answer at its socket, or not in words that are understood."""


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """One server of one backend. In maintenance it is not checked, and so never up."""

    backend: str
    name: str
    is_up: bool
    admin: str  # "ready", "drain" or "maint"


def ask(admin_socket: Path, command: str) -> str:
    """One command and its answer. Raises `RuntimeUnavailable`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(admin_socket))
            connection.sendall(command.encode("ascii") + b"\n")
            answer = bytearray()
            while piece := connection.recv(65536):
                answer += piece
                if len(answer) > _MOST_BYTES:
                    raise RuntimeUnavailable("HAProxy's answer is too long")
    except OSError as error:
        raise RuntimeUnavailable(f"HAProxy does not answer: {error}") from error
    return answer.decode("utf-8", "replace")


def servers(admin_socket: Path) -> list[ServerSeen]:
    """Every server of every backend. Raises `RuntimeUnavailable`."""
    lines = ask(admin_socket, "show servers state").splitlines()
    header = next((line[2:].split() for line in lines if line.startswith("# ")), None)
    if header is None:
        raise RuntimeUnavailable("HAProxy lists no servers")
    rows = (line.split() for line in lines if line and not line.startswith("#") and " " in line)
    return [_server(dict(zip(header, row, strict=False))) for row in rows]


def _server(row: Mapping[str, str]) -> ServerSeen:
    bits = int(row["srv_admin_state"])
    admin = "maint" if bits & _MAINTENANCE else "drain" if bits & _DRAIN else "ready"
    up = row["srv_op_state"] in _RUNNING and admin != "maint"
    return ServerSeen(row["be_name"], row["srv_name"], up, admin)


def bring_about(admin_socket: Path, wanted: Mapping[str, ServerState]) -> list[str]:
    """Give every server of a wanted name the wanted state, in all of `BACKENDS`. The changes, as words.

    `UNCHECKED` ones as well: who is drained gets nothing by them either.

    Raises `RuntimeUnavailable`.
    """
    changes = []
    for server in servers(admin_socket):
        state = wanted.get(server.name.removesuffix(UNCHECKED))
        if state is None or server.admin == state or server.backend not in BACKENDS:
            continue
        answer = ask(
            admin_socket, f"set server {server.backend}/{server.name} state {state}"
        ).strip()
        if answer:
            raise RuntimeUnavailable(f"HAProxy refuses {state} for {server.name}: {answer}")
        changes.append(f"{server.backend}/{server.name} {state}")
    return changes


def cut_off(admin_socket: Path, server: str) -> None:
    """Close every connection of clients to a cell in `OTHERS`. Raises `RuntimeUnavailable`."""
    answer = ask(admin_socket, f"shutdown sessions server {OTHERS}/{server}").strip()
    if answer:
        raise RuntimeUnavailable(f"HAProxy does not cut {server} off: {answer}")
