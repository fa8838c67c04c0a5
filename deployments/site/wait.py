"""`python -m deployments.site.wait NEED… [-- COMMAND…]`: waits for each, then becomes COMMAND.

launchd starts everything at once and systemd's order says nothing of readiness. A need is
`address:HOST` (can be bound: the network is up), `tcp:HOST:PORT` (takes connections) or
`postgres:HOST:PORT` (a PostgreSQL answers, however many proxies are between).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Sequence

_USAGE = "usage: wait address:HOST|tcp:HOST:PORT|postgres:HOST:PORT … [-- COMMAND …]"
_LONGEST_S = 600.0
_EVERY_S = 0.5
_TRY_S = 2.0
# SSLRequest of PostgreSQL's protocol: answered by one byte before anybody signs in.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def main(words: Sequence[str], *, longest_s: float = _LONGEST_S, every_s: float = _EVERY_S) -> int:
    """Returns 0 when all needs are there and no command follows, 1 if one did not come, 2 on misuse."""
    needs, command = list(words), []
    if "--" in needs:
        at = needs.index("--")
        needs, command = needs[:at], needs[at + 1 :]
    if not needs or not all(map(_is_need, needs)) or ("--" in words and not command):
        print(_USAGE, file=sys.stderr)
        return 2
    deadline = time.monotonic() + longest_s
    for need in needs:
        while not is_there(need):
            if time.monotonic() > deadline:
                print(f"{need} was not there within {longest_s:g} s", file=sys.stderr)
                return 1
            time.sleep(every_s)
    if command:
        os.execvp(command[0], command)
    return 0


def is_there(need: str) -> bool:
    """Whether a need is met now."""
    kind, _, rest = need.partition(":")
    if kind == "address":
        return _can_bind(rest)
    host, _, port = rest.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=_TRY_S) as connection:
            if kind == "tcp":
                return True
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"N", b"S")
    except OSError:
        return False


def _can_bind(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def _is_need(text: str) -> bool:
    kind, _, rest = text.partition(":")
    if kind == "address":
        return bool(rest)
    return kind in ("tcp", "postgres") and rest.rpartition(":")[2].isdigit()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
