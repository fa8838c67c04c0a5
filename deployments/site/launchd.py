"""launchd's jobs of a Mac: without an order, so that each waits for its needs, then is its program."""

from __future__ import annotations

import plistlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deployments.site.plan import HostPlan, Plan
from deployments.site.services import Service, services

FOLDER = Path("/Library/LaunchDaemons")
_LABEL = "org.medrec"
_WAIT = "deployments.site.wait"


def job_files(plan: Plan, host: HostPlan) -> Mapping[Path, str]:
    """Every job of a host by its path in /Library/LaunchDaemons."""
    jobs = [_job(host, service) for service in services(plan, host)]
    jobs.append(_firewall(host))
    return {
        FOLDER / f"{job['Label']}.plist": plistlib.dumps(job, sort_keys=False).decode()
        for job in jobs
    }


def _job(host: HostPlan, service: Service) -> dict[str, Any]:
    program = service.program
    command = list(program.command)
    if service.needs:
        command = [host.python, "-m", _WAIT, *service.needs, "--", *command]
    log = str(host.home.logs / f"{program.name}.log")
    # With a file's name as the condition launchd runs it while the file is there.
    kept: Any = {"PathState": {str(service.only_if): True}} if service.only_if else True
    return {
        "Label": f"{_LABEL}.{program.name}",
        "ProgramArguments": command,
        "EnvironmentVariables": {
            "PATH": "/opt/homebrew/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(host.project),
            **program.environment,
        },
        "UserName": service.user,
        "WorkingDirectory": str(host.home.path),
        **({"RunAtLoad": True} if kept is True else {}),
        "KeepAlive": kept,
        "ThrottleInterval": 5,
        "ExitTimeOut": int(program.stop_s) + 10,
        # Neither its CPU nor its disk is slowed for whoever sits at the screen.
        "ProcessType": "Interactive",
        # Patroni that ends leaves its PostgreSQL running, and takes it over again.
        **({"AbandonProcessGroup": True} if program.name == "patroni" else {}),
        "SoftResourceLimits": {"NumberOfFiles": 65_536},
        "HardResourceLimits": {"NumberOfFiles": 65_536},
        "StandardOutPath": log,
        "StandardErrorPath": log,
    }


def _firewall(host: HostPlan) -> dict[str, Any]:
    """macOS loads pf's rules at its start, but does not switch it on."""
    return {
        "Label": f"{_LABEL}.firewall",
        "ProgramArguments": ["/sbin/pfctl", "-E", "-f", str(host.folder / "firewall" / "pf.conf")],
        "RunAtLoad": True,
        "StandardErrorPath": "/var/log/medrec-firewall.log",
    }
