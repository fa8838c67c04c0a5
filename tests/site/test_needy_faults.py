"""The faults that need a site of their own: a disk that is full, a clock that jumps."""

from __future__ import annotations

import pytest

from benchmarks.failover import DISK_MB
from benchmarks.failover_site import SiteProcess
from deployments.edge.drills.faults import FAULTS
from deployments.site.ground import namespaces_are_possible
from tests.site.test_faults import LONG_S, struck

pytestmark = [pytest.mark.cluster, pytest.mark.site, pytest.mark.slow]


@pytest.mark.parametrize("name", ["disk-full", "clock-jump"])
def test_no_acknowledged_write_is_lost(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if not namespaces_are_possible():
        pytest.skip("every host is a network namespace: needs root on Linux")
    folder = tmp_path_factory.mktemp("own")  # sockets have short paths
    with SiteProcess(FAULTS[name].need, folder, DISK_MB) as site:
        found = struck(site, FAULTS[name], folder, hold_s=LONG_S)
    assert found.lost_acknowledged_writes == 0
    assert found.two_primaries_s == 0
    assert found.problems == ()
