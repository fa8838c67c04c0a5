"""Writes the files of a local site's hosts, each where its programs look for it."""

from __future__ import annotations

from pathlib import Path

from deployments.site import patroni_files
from deployments.site.cells import cell_config
from deployments.site.edge_config import write_haproxy
from deployments.site.etcd import etcd_config
from deployments.site.firewall import firewall_files
from deployments.site.keepalived import keepalived_files
from deployments.site.passwords import Passwords, read_or_make
from deployments.site.patroni import patroni_config, pgpass
from deployments.site.plan import LOOPBACK, HostPlan, Plan
from deployments.site.trust.renewal import edge_files, ensure_site, host_files


def write_files(plan: Plan, folder: Path) -> None:
    """Every file of every host. Raises `CellError`, `OSError`."""
    passwords = read_or_make(folder / "database_passwords.json")
    put_certificates(plan, folder / "ca")
    for host in plan.hosts.values():
        _write_host(plan, host, passwords)


def put_certificates(plan: Plan, folder: Path) -> None:
    """The site's authority, and each host's own files of it."""
    names = {host.name: [host.address, "localhost", LOOPBACK] for host in plan.hosts.values()}
    shared = plan.site.edge
    public = [shared.public_name, plan.public_address, "localhost"]
    ensure_site(folder, names, public, site=plan.site.name)
    for host in plan.hosts.values():
        host_files(folder, host.name).copy_to(host.tls)
        if host.host.role == "edge":
            edge_files(folder).copy_to(host.tls)


def _write_host(plan: Plan, host: HostPlan, passwords: Passwords) -> None:
    role = host.host.role
    if host in plan.etcd:
        _put(host.etcd_config, etcd_config(plan, host))
    if role != "witness":
        write_haproxy(plan, host)
    if role == "edge" and plan.ground != "loopback":
        for path, text in keepalived_files(plan, host).items():
            _put(path, text, mode=0o700 if path.suffix == ".sh" else 0o600)
    if plan.ground == "namespaces":
        for path, text in firewall_files(plan, host).items():
            _put(path, text)
    if text := pgpass(plan, host, passwords):
        _put(host.passfile, text)
    if role == "cell":
        patroni_files.put(plan, host, patroni_config(plan, host, passwords), passwords)
    if role in ("cell", "emergency"):
        _put(host.cell_config, cell_config(plan, host))


def _put(path: Path, text: str, *, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
