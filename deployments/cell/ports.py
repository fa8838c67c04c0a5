"""Every port of a cell, from one value; a second cell on the machine shifts them all."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import psutil

OFFSET_STEP = 1000
MAX_OFFSET = 11_000
_SETTINGS = {"public": "PORT", "serve": "http_options.port"}


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a cell. Ray's own lie in one block of 1,000, below the ephemeral ranges."""

    public: int = 8000
    serve: int = 8001
    dashboard: int = 8265
    gcs: int = 20000
    node_manager: int = 20001
    object_manager: int = 20002
    client_server: int = 20003
    metrics: int = 20004
    agent_grpc: int = 20005
    agent_http: int = 20006
    runtime_env_agent: int = 20007
    ingress_first: int = 20100
    ingress_last: int = 20131
    worker_first: int = 20200
    worker_last: int = 20999

    def shifted(self, offset: int) -> Ports:
        """All ports moved by `offset`, a multiple of 1,000, so that no two cells meet."""
        if offset % OFFSET_STEP or not 0 <= offset <= MAX_OFFSET:
            raise ValueError(f"a port offset is a multiple of {OFFSET_STEP}, up to {MAX_OFFSET}")
        return Ports(*(getattr(self, field.name) + offset for field in fields(self)))

    @property
    def ingress(self) -> range:
        """The ports on which API replicas listen themselves."""
        return range(self.ingress_first, self.ingress_last + 1)

    def singles(self) -> Iterator[tuple[str, int]]:
        """Each port that one process listens on, with its name."""
        for field in fields(self):
            if not field.name.startswith(("ingress_", "worker_")):
                yield field.name, getattr(self, field.name)


@dataclass(frozen=True, slots=True)
class Taken:
    """A port that somebody else listens on, and the setting that would move ours."""

    name: str
    port: int
    setting: str
    holder: str

    def __str__(self) -> str:
        return (
            f"port {self.port} ({self.name}) is taken{self.holder}; "
            f"choose another with {self.setting}"
        )


def taken(ports: Ports) -> list[Taken]:
    """The ports of a cell that cannot be bound now."""
    return [
        Taken(name, port, _SETTINGS.get(name, "--port-offset"), _holder(port))
        for name, port in ports.singles()
        if not is_free(port)
    ]


def is_free(port: int) -> bool:
    """Whether nothing listens on `port`, on the loopback or on all addresses."""
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            # A connection that lingers in TIME_WAIT does not hold the port; a listener does.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


def free_offset() -> int:
    """An offset at which every port is free now, drawn at random: two seekers seldom meet."""
    offsets = list(range(OFFSET_STEP, MAX_OFFSET + 1, OFFSET_STEP))
    random.shuffle(offsets)
    for offset in offsets:
        ports = Ports().shifted(offset)
        if all(is_free(port) for _, port in ports.singles()) and is_free(ports.ingress_first):
            return offset
    raise RuntimeError("no port offset is free: stop another cell")


def chosen(offset: int, *, public: int | None, serve: int) -> Ports:
    """A cell's ports: shifted, with `public` from PORT as given and `serve` from the config."""
    ports = Ports(serve=serve).shifted(offset)
    return ports if public is None else replace(ports, public=public)


def _holder(port: int) -> str:
    """Who listens, as far as the system tells an ordinary user."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr.port == port
                and connection.pid
            ):
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
