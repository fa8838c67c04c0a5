"""What PostgreSQL on a cell's host is told so that it archives its log into the site's backup."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from deployments.data.backup import settings
from deployments.site.plan import HostPlan, Plan


def settings_file(host: HostPlan) -> Path:
    """The backup's settings on the host: `medrec backup init` writes them there."""
    return host.home.path / settings.FILE


def archive_parameters(plan: Plan, host: HostPlan) -> Mapping[str, str]:
    """Server parameters; nothing where the site file names no backup."""
    backup = plan.site.backup
    if backup is None:
        return {}
    # The server stands in its data folder and has nothing of our environment.
    words = (host.python, "-m", "deployments.data.backup.archive", str(settings_file(host)))
    root = shlex.quote(str(host.project))
    program = f"PYTHONPATH={root} PYTHONDONTWRITEBYTECODE=1 {shlex.join(words)}"
    return {
        "archive_mode": "on",
        "archive_command": f"{program.replace('%', '%%')} %p %f",
        "archive_timeout": f"{backup.wal_every_s}s",
    }


def setup_command(plan: Plan, host: HostPlan) -> str | None:
    """The command that makes key and settings on a host; None where there is no backup."""
    backup = plan.site.backup
    if backup is None:
        return None
    words = ["medrec", "backup", "init", "--to", backup.to, "--site", plan.site.name]
    words += ["--prefix", backup.prefix, "--keep-days", str(backup.keep_days)]
    words += ["--base-at", backup.base_at, "--config", str(host.cell_config)]
    if backup.endpoint is not None:
        words += ["--endpoint", backup.endpoint]
    return shlex.join(words)
