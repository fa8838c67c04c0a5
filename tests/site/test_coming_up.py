"""A site that is still coming up answers, and ends when it is told to."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from configs.reader import PROJECT_ROOT
from deployments.cell.state import CellError
from deployments.site import control, here

pytestmark = [pytest.mark.cluster, pytest.mark.site]

_MEDREC = (sys.executable, "-m", "serve_app.cli", "site")
_STEP_S, _UP_S = 60.0, 600.0


@pytest.mark.slow
def test_down_ends_a_site_that_is_coming_up_and_leaves_no_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("up")  # sockets have short paths
    environment = {**os.environ, "MEDREC_HOME": str(home)}
    socket = home / here.LOCAL / control.SOCKET
    with subprocess.Popen(
        [*_MEDREC, "up", "--loopback"],
        cwd=PROJECT_ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    ) as site:  # fmt: skip
        try:
            _wait(lambda: socket.exists() and "haproxy" in _programs(site.pid))
            with pytest.raises(CellError, match="still coming up"):
                control.ask(socket, "lose", ["mac-a"])
            started = psutil.Process(site.pid).children(recursive=True)
            down = subprocess.run(
                [*_MEDREC, "down"], cwd=PROJECT_ROOT, env=environment, text=True,
                capture_output=True, timeout=_STEP_S, check=False,
            )  # fmt: skip
            assert (down.returncode, down.stdout) == (0, "stopped\n"), down.stderr
            assert site.wait(_STEP_S) == 0
            assert site.stdout is not None
            assert site.stdout.read().endswith("stopped\n")
            assert [process for process in started if process.is_running()] == []
        finally:
            site.kill()


@pytest.mark.slow
def test_on_one_loopback_a_whole_site_comes_up_as_it_says(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    home = tmp_path_factory.mktemp("all")
    environment = {**os.environ, "MEDREC_HOME": str(home)}
    output = home / "site.out"
    with (
        output.open("wb") as stream,
        subprocess.Popen(
            [*_MEDREC, "up", "--loopback"],
            cwd=PROJECT_ROOT, env=environment,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        ) as site,
    ):  # fmt: skip
        try:
            _wait(lambda: site.poll() is not None or "ready at" in output.read_text(), _UP_S)
            line = next(s for s in output.read_text().splitlines() if s.strip().startswith("curl"))
            mode = subprocess.run(
                shlex.split(line), capture_output=True, timeout=_STEP_S, check=True
            )
            assert json.loads(mode.stdout)["mode"] == "normal"
            status = subprocess.run(
                [*_MEDREC, "status"], cwd=PROJECT_ROOT, env=environment, text=True,
                capture_output=True, timeout=_STEP_S, check=True,
            )  # fmt: skip
            assert "sync_standby streaming" in status.stdout
            site.terminate()
            assert site.wait(_UP_S) == 0
        finally:
            site.kill()


def test_a_home_whose_path_is_too_long_for_sockets_is_refused_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "MEDREC_HOME": str(tmp_path / ("long" * 10))}
    refused = subprocess.run(
        [*_MEDREC, "up", "--loopback"], cwd=PROJECT_ROOT, env=environment, text=True,
        capture_output=True, timeout=_STEP_S, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "choose a shorter MEDREC_HOME" in refused.stderr + refused.stdout


def _programs(pid: int) -> set[str]:
    return {child.name() for child in psutil.Process(pid).children(recursive=True)}


def _wait(true: Callable[[], bool], most_s: float = _STEP_S) -> None:
    deadline = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
