"""The index beside a host's rendered files: what lies where, and the commands that put it there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from deployments.site import launchd, systemd, ups
from deployments.site.archiving import setup_command
from deployments.site.plan import HostPlan, Plan, host_names
from deployments.site.ups import ups_files

INDEX = "INSTALL.txt"


def instructions(plan: Plan, host: HostPlan, modes: Mapping[Path, int]) -> str:
    """Plain text; `modes` are the host's files by their paths on it."""
    user = host.host.user
    lines = [
        f"Host {host.name} of site {plan.site.name}: role {host.host.role}, {host.address}",
        "",
        "This folder is laid out as the host's own root. Before it is copied there:",
        f"  the account {user}, and {host.project} with its .venv, Python "
        f"{host.site_packages.parent.name.removeprefix('python')}",
        *(f"  {line}" for line in _needed(plan, host)),
        "",
        "In this folder, as root of the host:",
        *(f"  {line}" for line in _commands(plan, host)),
        "",
        "Files (mode, owner, path):",
        *(f"  {mode:04o} {_owner(host, path):<8} {path}" for path, mode in sorted(modes.items())),
    ]
    if missing := list(_missing(plan, host, modes)):
        lines += ["", "Not here, because there was no secret to put in them:"]
        lines += [f"  {path}: {reason}" for path, reason in missing]
    return "\n".join(lines) + "\n"


def _needed(plan: Plan, host: HostPlan) -> Iterator[str]:
    if host.host.platform == "macos":
        yield "brew install haproxy; sudo pmset -a autorestart 1 sleep 0 disksleep 0"
        return
    packages = ["nftables"]
    if host in plan.etcd:
        packages += ["etcd-server", "etcd-client"]
    if host in plan.edges and plan.site.edge.address is not None:
        packages += ["keepalived"]
    yield f"apt install {' '.join(packages)}; the packages' own services off: systemctl disable --now"


def _commands(plan: Plan, host: HostPlan) -> Iterator[str]:
    home = host.home.path
    group = "staff" if host.host.platform == "macos" else host.host.user
    yield f"mkdir -p {home} && cp -R .{home}/. {home}/"
    marker = host_names(plan.site).splitlines()[0]
    yield f"grep -qxF '{marker}' /etc/hosts || cat {host.host_names} >> /etc/hosts"
    if host in plan.etcd:
        yield f"mkdir -p {host.etcd_data}"
    yield f"mkdir -p {host.home.logs}"
    if host in plan.cells:
        yield f"mkdir -p {host.database.parent}"
    yield f"chown -R {host.host.user}:{group} {home} && chmod 700 {home}"
    # What root reads or runs is root's: the account could otherwise make root run its own.
    rooted = [host.folder / "firewall"]
    if host in plan.edges and plan.site.edge.address is not None:
        rooted.append(host.keepalived_config.parent)
    yield f"chown -R 0:0 {' '.join(map(str, rooted))} && chmod 755 {' '.join(map(str, rooted))}"
    if host in plan.etcd:
        yield f"chmod 700 {host.etcd_data}"
    if (setup := setup_command(plan, host)) is not None and host in plan.cells:
        yield f"as {host.host.user}, before the first start: {setup}"
    if host.host.platform == "macos":
        folder = launchd.FOLDER
        yield f"install -o root -g wheel -m 644 .{folder}/*.plist {folder}/"
        for path in launchd.job_files(plan, host):
            yield f"launchctl bootstrap system {path}"
    else:
        yield f"cp .{systemd.FOLDER}/medrec* {systemd.FOLDER}/ && systemctl daemon-reload"
        yield f"systemctl enable {' '.join(systemd.units(plan, host))}"
        yield f"systemctl start medrec-firewall.service {systemd.TARGET}"
    if ups_files(plan, host):
        yield f"mkdir -p {ups.FOLDER} && cp -R .{ups.FOLDER}/. {ups.FOLDER}/"
        yield f"with NUT: install -m 440 .{ups.SUDOERS} {ups.SUDOERS}"
        yield f"  and in upsmon.conf: NOTIFYCMD {ups.FOLDER / 'nut_notify.sh'}"
        yield f"with apcupsd: cp {ups.FOLDER / 'apcupsd'}/* /etc/apcupsd/"


def _owner(host: HostPlan, path: Path) -> str:
    of_root = (host.folder / "firewall", host.keepalived_config.parent)
    is_own = path.is_relative_to(host.home.path) and path.parent not in of_root
    return host.host.user if is_own else "root"


def _missing(plan: Plan, host: HostPlan, modes: Mapping[Path, int]) -> Iterator[tuple[Path, str]]:
    wanted = [(host.tls / "host.pem", f"medrec ca host {host.name}")]
    if host in plan.edges:
        wanted.append((host.tls / "edge.pem", "medrec ca edge"))
    if host in plan.cells:
        wanted.append((host.patroni_config, "the site's database passwords"))
    if host in plan.cells or host == plan.cloud:
        wanted.append((host.passfile, "the site's database passwords"))
    for path, reason in wanted:
        if path not in modes:
            yield path, reason
