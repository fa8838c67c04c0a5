"""Clocks of a local site's hosts: the time of day jumps, waits do not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.reader import PROJECT_ROOT
from configs.site import load_site
from deployments.cell.state import CellError
from deployments.site.fake_time import fake_time_of, set_offset
from deployments.site.plan import on_this_machine

SCRIPT = """
import sys, time
began = time.monotonic()
time.sleep(0.2)
print(time.time(), time.monotonic() - began)
"""


def test_the_time_of_day_jumps_and_a_sleep_lasts_as_long_as_before(tmp_path: Path) -> None:
    site = load_site(PROJECT_ROOT / "configs" / "site-local.yaml")
    plan = on_this_machine(site, tmp_path, "loopback", base=20_000, cell_offset=0)
    try:
        host = plan.cells[0]
        variables = fake_time_of(plan)[host.name]
    except CellError as error:
        pytest.skip(str(error))

    def told() -> tuple[float, float]:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], env={**os.environ, **variables},
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        now, slept = done.stdout.split()
        return float(now), float(slept)

    before, slept = told()
    assert 0.2 <= slept < 20
    set_offset(host, 3600)
    after, slept = told()
    assert 3600 <= after - before < 3660
    assert 0.2 <= slept < 20
