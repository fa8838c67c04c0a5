"""The account that PostgreSQL runs as where we are root."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.data import postgres_account

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only on Linux does root make an account"
)


def test_cells_that_start_for_the_first_time_together_make_one_account(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = pwd.struct_passwd((postgres_account.NAME, "x", 999, 999, "", "/", "/bin/false"))
    made: list[list[str]] = []

    def getpwnam(name: str) -> pwd.struct_passwd:
        if not made:
            raise KeyError(name)
        return entry

    def useradd(line: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        time.sleep(0.1)
        made.append(line)
        return subprocess.CompletedProcess(line, 0, "", "")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", getpwnam)
    monkeypatch.setattr(subprocess, "run", useradd)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: postgres_account.identity(), range(4)))
    assert found == [{"user": 999, "group": 999, "extra_groups": []}] * 4
    assert len(made) == 1
