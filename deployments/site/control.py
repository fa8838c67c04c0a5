"""How other processes of this machine speak to the owner of a local site: a private socket, a line of
JSON each way. Not part of a real site, where systemd and launchd own the programs.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from deployments.cell.state import CellError

SOCKET = "control.sock"
_MOST_BYTES = 65536
_READ_TIMEOUT_S = 2.0

Answer = Callable[[str, list[Any]], Any]


class Control:
    """The owner's end. `serve_once` answers who waits, and is called in the owner's loop."""

    def __init__(self, path: Path, answer: Answer) -> None:
        path.unlink(missing_ok=True)
        self._path, self._answer = path, answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        path.chmod(0o600)
        self._listener.listen(8)

    def serve_once(self, timeout_s: float) -> bool:
        """Wait for one command up to `timeout_s` seconds and answer it; whether there was one."""
        self._listener.settimeout(timeout_s)
        try:
            connection, _ = self._listener.accept()
        except TimeoutError:
            return False
        with connection:
            connection.settimeout(_READ_TIMEOUT_S)
            with suppress(OSError):
                connection.sendall(json.dumps(self._answered(connection)).encode() + b"\n")
        return True

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _answered(self, connection: socket.socket) -> Mapping[str, Any]:
        try:
            command, arguments = json.loads(_line(connection))
            return {"result": self._answer(command, arguments)}
        except (ValueError, TypeError) as error:
            return {"error": f"this is no command: {error}"}
        except (CellError, OSError) as error:
            return {"error": str(error)}


def ask(path: Path, command: str, *arguments: Any, timeout_s: float = 60.0) -> Any:
    """Send one command to the owner and return what it answers. Raises `CellError`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(json.dumps([command, arguments]).encode() + b"\n")
            answer = json.loads(_line(connection))
    except (OSError, ValueError) as error:
        raise CellError(f"no site answers at {path}: {error}") from error
    if "error" in answer:
        raise CellError(answer["error"])
    return answer["result"]


def _line(connection: socket.socket) -> bytes:
    found = bytearray()
    while not found.endswith(b"\n") and len(found) < _MOST_BYTES:
        piece = connection.recv(4096)
        if not piece:
            break
        found += piece
    return bytes(found)
