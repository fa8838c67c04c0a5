"""Writes every file of every host of a real site, below a folder for each, at the path it has there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from deployments.site import here, passwords
from deployments.site.archiving import archive_parameters
from deployments.site.cells import cell_config
from deployments.site.edge_config import write_haproxy
from deployments.site.etcd import etcd_config
from deployments.site.firewall import firewall_files
from deployments.site.install import INDEX, instructions
from deployments.site.keepalived import keepalived_files
from deployments.site.launchd import job_files
from deployments.site.passwords import Passwords
from deployments.site.patroni import patroni_config, pgpass
from deployments.site.plan import HostPlan, Plan, host_names
from deployments.site.prometheus import prometheus_files
from deployments.site.systemd import unit_files
from deployments.site.trust.files import HostFiles
from deployments.site.trust.renewal import edge_files, host_files
from deployments.site.ups import SUDOERS, ups_files

_SECRET, _PLAIN, _SCRIPT, _SUDOERS = 0o600, 0o644, 0o755, 0o440
_SHEBANG = "#!/bin/"
# Beside the hosts' folders: for the machine that watches them, which is none of the site.
MONITORING = "monitoring"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What of a site must not be in a folder that is passed around; None: it does not exist yet."""

    passwords: Passwords | None = None
    authority: Path | None = None

    @classmethod
    def of(cls, folder: Path) -> Secrets:
        """Those of a folder: `database_passwords.json`, and `ca/` of `medrec ca`. Raises `CellError`."""
        file, authority = folder / passwords.FILE, folder / "ca"
        return cls(
            passwords.read(file) if file.exists() else None,
            authority if (authority / "ca.crt").exists() else None,
        )


def render(plan: Plan, out: Path, secrets: Secrets | None = None) -> list[Path]:
    """Write the files of every host below `<out>/<host>/`, and an index for each; their paths.

    A file that would hold a secret is left out while there is none, and the index says so.
    Raises `OSError`, `ConfigError`, `CellError`.
    """
    written: list[Path] = []
    for host in plan.hosts.values():
        folder = out / host.name
        made = sorted(_write_host(plan, host, folder, secrets or Secrets()))
        index = folder / INDEX
        text = instructions(plan, host, {_on_host(folder, path): _mode(path) for path in made})
        written += [*made, _put(index, text, _PLAIN)]
    for name, text in prometheus_files(plan).items():
        written.append(_put(out / MONITORING / name, text, _PLAIN))
    return written


def _write_host(plan: Plan, host: HostPlan, folder: Path, secrets: Secrets) -> Iterator[Path]:
    for path, text in _plain_files(plan, host):
        yield _put(_below(folder, path), text, _mode_of(path, text))
    if host.host.role != "witness":
        haproxy = write_haproxy(plan, host, folder=_below(folder, host.haproxy_config.parent))
        for file in haproxy.parent.iterdir():
            file.chmod(_PLAIN)
            yield file
    for path, text in _secret_files(plan, host, secrets.passwords):
        yield _put(_below(folder, path), text, _SECRET)
    if secrets.authority is not None:
        yield from _certificates(host, folder, secrets.authority)


def _plain_files(plan: Plan, host: HostPlan) -> Iterator[tuple[Path, str]]:
    site = plan.site.model_dump(mode="json", exclude_unset=True)
    yield host.site_file, yaml.safe_dump(site, sort_keys=False, allow_unicode=True)
    ground = {"ground": "hosts", "host": host.name}
    yield host.folder / here.FILE, json.dumps(ground) + "\n"
    yield host.host_names, host_names(plan.site)
    if host in plan.etcd:
        yield host.etcd_config, etcd_config(plan, host)
    if host.host.config is not None:
        yield host.cell_config, cell_config(plan, host)
    if host in plan.edges:
        yield from keepalived_files(plan, host).items()
    yield from firewall_files(plan, host).items()
    yield from ups_files(plan, host).items()
    services = unit_files if host.host.platform == "linux" else job_files
    yield from services(plan, host).items()


def _secret_files(
    plan: Plan, host: HostPlan, known: Passwords | None
) -> Iterator[tuple[Path, str]]:
    if known is None:
        return
    if text := pgpass(plan, host, known):
        yield host.passfile, text
    if host in plan.cells:
        archive = archive_parameters(plan, host)
        yield host.patroni_config, patroni_config(plan, host, known, archive=archive)
        yield host.patroni_config.parent / passwords.FILE, known.dump().decode()


def _certificates(host: HostPlan, folder: Path, authority: Path) -> Iterator[Path]:
    found: list[HostFiles] = [host_files(authority, host.name)]
    if host.host.role == "edge":
        found.append(edge_files(authority))
    tls = _below(folder, host.tls)
    written = set()
    for files in found:
        if files.bundle.exists():
            files.copy_to(tls)
            written |= {tls / path.name for path in files.paths}
    yield from written


def _mode_of(path: Path, text: str) -> int:
    if path == SUDOERS:
        return _SUDOERS
    return _SCRIPT if text.startswith(_SHEBANG) else _PLAIN


def _below(folder: Path, path: Path) -> Path:
    """Where a host's absolute path lies in its folder."""
    return folder / path.relative_to(path.anchor)


def _on_host(folder: Path, path: Path) -> Path:
    return Path("/") / path.relative_to(folder)


def _mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def _put(path: Path, text: str, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Never readable by others for a moment.
    path.touch(mode=_SECRET)
    path.chmod(_SECRET)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path
