"""A small HTTP server that stands for an API replica; each test says what it answers."""

from __future__ import annotations

import socket
import threading
import time
import weakref
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Replies(BaseHTTPRequestHandler):
    """Give it `do_GET`; a POST is read to its end and answered alike."""

    protocol_version = "HTTP/1.1"
    body = b""

    def do_GET(self) -> None:
        raise NotImplementedError

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    @property
    def fields(self) -> dict[str, str]:
        """The request's header fields, their names in small letters."""
        return {name.lower(): value for name, value in self.headers.items()}

    def answer(self, status: int, body: bytes, *, stalls_s: float = 0.0) -> None:
        """Answer; `stalls_s` is the pause between head and body."""
        # Whoever asked may be gone.
        with suppress(OSError):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            time.sleep(stalls_s)
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves on the loopback from its making until `end`."""

    daemon_threads = True

    def __init__(self, port: int, replies: type[Replies]) -> None:
        self._connections: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        super().__init__(("127.0.0.1", port), replies)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """HAProxy resets its checks' connections; that is no error."""

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def end(self) -> None:
        """As a process that is killed: connections that are kept open end with it."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
