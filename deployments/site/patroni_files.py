"""Puts Patroni's files where its account can read them, on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from deployments.data import postgres_account
from deployments.data.durable import replace_file
from deployments.site.passwords import FILE, Passwords
from deployments.site.patroni import patroni_tls
from deployments.site.plan import HostPlan, Plan

_CERTIFICATES = ("host.crt", "host.key", "ca.crt")


def put(plan: Plan, host: HostPlan, config: str, passwords: Passwords) -> Path:
    """Write the configuration, the roles' passwords and copies of the certificates; its path.

    All of it belongs to PostgreSQL's account, which Patroni runs under, and nobody else reads it.
    """
    folder = host.patroni_config.parent
    tls = patroni_tls(plan, host)
    for each in (folder, tls, host.database.parent):
        each.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(host.patroni_config, config.encode())
    replace_file(folder / FILE, passwords.dump())
    for name in _CERTIFICATES if tls != host.tls else ():
        shutil.copyfile(host.tls / name, tls / name)
        (tls / name).chmod(0o600)
    # The outer folder last: on the way to an inner one it is opened for passing through.
    for each in (tls, folder, host.database.parent):
        postgres_account.hand_over(each)
        for file in each.iterdir():
            _give(file)
    for each in _python():
        postgres_account.let_through(each)
    postgres_account.let_through(host.project / "deployments" / "site" / "database_roles.py")
    return host.patroni_config


def _give(file: Path) -> None:
    identity = postgres_account.identity()
    if identity and file.is_file():
        os.chown(file, identity["user"], identity["group"])


def _python() -> Iterator[Path]:
    """What this Python is started from and imports from."""
    yield Path(sys.executable)
    yield Path(sys.executable).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield Path(sysconfig.get_path(name)) / "any"
