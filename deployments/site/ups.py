"""What a UPS of a cell's host calls: NUT or apcupsd, of which a host has one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from deployments.site.plan import HostPlan, Plan
from deployments.site.templates import filled

# Not in the home, which is closed to other accounts: NUT has one of its own.
FOLDER = Path("/usr/local/libexec/medrec")
SUDOERS = Path("/etc/sudoers.d/medrec-ups")
SCRIPT = "handover.sh"
# A dip of the mains is over by then; of 45 minutes on battery it costs one.
_DELAY_S = 60
_APCUPSD = ("onbattery", "offbattery", "doshutdown")


def ups_files(plan: Plan, host: HostPlan, folder: Path = FOLDER) -> Mapping[Path, str]:
    """The scripts of a cell's host by their paths on it; nothing where no other cell could take over."""
    if host not in plan.cells or len(plan.cells) < 2:
        return {}
    script = folder / SCRIPT
    user = host.host.user
    made = {
        script: filled(
            "ups_handover.sh.j2",
            name=SCRIPT,
            script=script,
            host=host.name,
            home=host.home.path,
            project=host.project,
            python=host.python,
            user=user,
            delay_s=_DELAY_S,
        ),
        folder / "nut_notify.sh": filled("nut_notify.sh.j2", script=script),
        SUDOERS: filled("ups_sudoers.j2", user=user, script=script),
    }
    for event in _APCUPSD:
        made[folder / "apcupsd" / event] = filled(f"apcupsd_{event}.sh.j2", script=script)
    return made
