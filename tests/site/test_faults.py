"""Parts of a whole site are lost under load: nobody fails, nothing acknowledged is lost, it heals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.failover import DATABASE_WORST_S, EMERGENCY_S, PLAIN_LIMITS, pace_of
from benchmarks.failover_site import SiteProcess
from deployments.edge.drills import experiment
from deployments.edge.drills.experiment import Experiment, Limits
from deployments.edge.drills.faults import FAULTS

pytestmark = pytest.mark.cluster

# These three run in `make test`; `make test-site` runs the others too.
ALWAYS = ("machine-lost", "postgres-killed", "both-lost")
ON_A_PLAIN_SITE = [name for name, fault in FAULTS.items() if fault.need in ("", "namespaces")]
HOLD_S = 25.0
# Two cores carry three cells, two databases and the load: single requests may wait for the CPU
# here, which `python -m benchmarks failover` measures on a quiet machine.
SLACK = 3.0


def struck(site: SiteProcess, name: str, folder: Path) -> Experiment:
    limits = Limits(
        plain_s=PLAIN_LIMITS.get(name, 30.0 / SLACK) * SLACK,
        database_s=DATABASE_WORST_S * SLACK,
        emergency_s=EMERGENCY_S * SLACK,
    )
    fault = FAULTS[name]
    found = experiment.run(
        site.scene,
        fault,
        site.target,
        tell=print,
        hold_s=HOLD_S,
        pace=pace_of(fault),
        limits=limits,
    )
    (folder / f"{name}.json").write_text(json.dumps(found.values(), indent=1))
    return found


@pytest.mark.parametrize(
    "name",
    [n if n in ALWAYS else pytest.param(n, marks=pytest.mark.site) for n in ON_A_PLAIN_SITE],
)
def test_what_is_left_goes_on_and_no_acknowledged_write_is_lost(
    site: SiteProcess, name: str, tmp_path: Path
) -> None:
    found = struck(site, name, tmp_path)
    assert found.acknowledged_writes > 0
    assert found.lost_acknowledged_writes == 0
    assert found.doubled_writes == 0
    assert found.two_primaries_s == 0
    assert found.restored_s is not None
    assert found.problems == ()
