"""etcd's configuration: the members that agree on which PostgreSQL leads."""

from __future__ import annotations

import yaml

from deployments.site.plan import HostPlan, Plan

# Twenty heartbeats of a hospital's network fit an election; a small box's slow disk fits as well.
_HEARTBEAT_MS = 200
_ELECTION_MS = 2_000
# Patroni's keys are a few kilobytes; the quota is far above what an hour's revisions of them take.
_QUOTA_BYTES = 512 * 2**20
_COMPACTED_AFTER = "1h"


def etcd_config(plan: Plan, host: HostPlan) -> str:
    """etcd 3.4's YAML for one member. Raises `ValueError` if the host runs none."""
    if host not in plan.etcd:
        raise ValueError(f"{host.name} runs no etcd")
    client = f"https://{host.address}:{host.ports.etcd_client}"
    settings = {
        "name": host.name,
        "data-dir": str(host.etcd_data),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer_url(host),
        "initial-advertise-peer-urls": peer_url(host),
        "initial-cluster": ",".join(f"{each.name}={peer_url(each)}" for each in plan.etcd),
        "initial-cluster-token": f"medrec-{plan.site.name}",
        "initial-cluster-state": "new",
        "strict-reconfig-check": True,
        "heartbeat-interval": _HEARTBEAT_MS,
        "election-timeout": _ELECTION_MS,
        "quota-backend-bytes": _QUOTA_BYTES,
        "auto-compaction-mode": "periodic",
        "auto-compaction-retention": _COMPACTED_AFTER,
        "enable-v2": False,
        # Patroni speaks to it; read from a file, 3.4 has it off.
        "enable-grpc-gateway": True,
        "logger": "zap",
        "log-outputs": ["stderr"],
        "log-level": "warn",
        "client-transport-security": _tls(host),
        "peer-transport-security": _tls(host),
    }
    return yaml.safe_dump(settings, sort_keys=False)


def peer_url(host: HostPlan) -> str:
    """Where the other members reach this one."""
    return f"https://{host.address}:{host.ports.etcd_peer}"


def _tls(host: HostPlan) -> dict[str, object]:
    return {
        "cert-file": str(host.tls / "host.crt"),
        "key-file": str(host.tls / "host.key"),
        "trusted-ca-file": str(host.tls / "ca.crt"),
        "client-cert-auth": True,
    }
