"""Parts of a whole site are lost under load: nobody fails, nothing acknowledged is lost, it heals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.failover import DATABASE_WORST_S, EMERGENCY_S, PLAIN_LIMITS, pace_of
from benchmarks.failover_site import SiteProcess
from deployments.edge.drills import experiment
from deployments.edge.drills.experiment import WHOLE_TIMEOUT_S, Experiment, Limits
from deployments.edge.drills.faults import FAULTS, Fault, end_emergency
from deployments.edge.drills.scene import Cast, Scene

pytestmark = [pytest.mark.cluster, pytest.mark.site]

# The three that matter most come first; then every fault, each until the site is whole.
ALWAYS = ("postgres-killed", "machine-lost", "both-lost")
ON_A_PLAIN_SITE = [name for name, fault in FAULTS.items() if fault.need in ("", "namespaces")]
HOLD_S = {"postgres-killed": 8.0, "both-lost": 20.0}
LONG_S = 25.0


def restore_one(scene: Scene, cast: Cast) -> None:
    """Give power back to the cell that served alone: enough to end the emergency."""
    scene.ask("restore", cast.serving)
    scene.wait(
        lambda: any(c["is_up"] and c["name"] == cast.serving for c in scene.told()["cells"]), 420
    )
    end_emergency(scene, cast)


def struck(
    site: SiteProcess, fault: Fault, folder: Path, *, hold_s: float, heal_s: float = WHOLE_TIMEOUT_S
) -> Experiment:
    found = experiment.run(
        site.scene,
        fault,
        site.target,
        tell=print,
        hold_s=hold_s,
        pace=pace_of(fault),
        limits=Limits(
            plain_s=PLAIN_LIMITS.get(fault.name),
            database_s=DATABASE_WORST_S,
            emergency_s=EMERGENCY_S,
        ),
        heal_s=heal_s,
    )
    (folder / f"{fault.name}.json").write_text(json.dumps(found.values(), indent=1))
    # Seconds are the benchmark's: two busy cores carry three cells, two databases and the load.
    print(fault.name, found.first_success_s, found.failed, found.problems)
    return found


def assert_safe(found: Experiment) -> None:
    assert found.acknowledged_writes > 0
    assert found.lost_acknowledged_writes == 0
    assert found.doubled_writes == 0
    assert found.two_primaries_s == 0
    assert found.first_success_s is not None


@pytest.mark.parametrize("name", ALWAYS)
def test_what_is_left_goes_on_and_no_acknowledged_write_is_lost(
    site: SiteProcess, name: str, tmp_path: Path
) -> None:
    fault = FAULTS[name]
    is_last = name == ALWAYS[-1]
    if is_last:
        # One cell is enough to read every write back.
        fault = replace(fault, end=restore_one)
    heal_s = 0.0 if is_last else WHOLE_TIMEOUT_S
    found = struck(site, fault, tmp_path, hold_s=HOLD_S.get(name, LONG_S), heal_s=heal_s)
    assert_safe(found)
    assert is_last or found.restored_s is not None


@pytest.mark.parametrize("name", ON_A_PLAIN_SITE)
def test_every_fault_keeps_its_limits_and_the_site_heals(
    site: SiteProcess, name: str, tmp_path: Path
) -> None:
    found = struck(site, FAULTS[name], tmp_path, hold_s=LONG_S)
    assert_safe(found)
    assert found.restored_s is not None
    assert found.hung == 0
    assert found.problems == ()
