"""The ports of a site's host, beside those of its cell (deployments/cell/ports.py)."""

from __future__ import annotations

from dataclasses import dataclass, fields

# Hosts that share one loopback have a block each; no port of a cell (x000, x001, x265, 20000 and
# above) lies between.
LOOPBACK_BASE = 14_100
BLOCK = 20


@dataclass(frozen=True, slots=True)
class HostPorts:
    """Ports of one host. Everything reachable from another host asks for a client certificate, but
    the edge's `https`, where it is wanted of emergency's devices only."""

    # On the host's address.
    https: int = 443
    http: int = 80
    api_tls: int = 8443
    postgres_tls: int = 5443
    copy_tls: int = 5444
    patroni: int = 8008
    etcd_client: int = 2379
    etcd_peer: int = 2380
    steward: int = 8405
    exporter: int = 8404
    # On its loopback.
    postgres: int = 15_432
    primary: int = 5433
    copy: int = 5434
    peer: int = 8446

    @classmethod
    def in_block(cls, index: int, base: int = LOOPBACK_BASE) -> HostPorts:
        """Those of the host number `index` of several that share one loopback."""
        return cls(**{f.name: base + BLOCK * index + at for at, f in enumerate(fields(cls))})
