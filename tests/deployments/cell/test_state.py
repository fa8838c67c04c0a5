"""The files of a cell: whole or not there, private, and held by one process at a time."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from deployments.cell import state
from deployments.cell.ports import Ports
from deployments.cell.processes import Recorded
from deployments.cell.state import CellError, Charged, Home, State


def a_state(**changes: object) -> State:
    mine = Recorded.of(os.getpid())
    assert mine is not None
    values: dict[str, object] = {
        "owner": mine,
        "config": "/configs/local.yaml",
        "started": time.time(),
        "ports": Ports().shifted(2000),
        "ray_dir": "/tmp/medrec-x",
        "charged": (Charged("haproxy", "api", mine),),
        "processes": (mine,),
        "sessions": (12345,),
    }
    return State(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path / "home")
    found.prepare()
    return found


def test_a_state_read_is_the_state_written(home: Home) -> None:
    written = a_state()
    state.write(home, written)
    assert state.read(home) == written
    state.forget(home)
    assert state.read(home) is None


def test_only_the_owner_can_read_the_token(home: Home) -> None:
    assert stat.S_IMODE(home.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert len(home.token_file.read_text()) == 64


def test_the_token_stays_the_same(home: Home) -> None:
    before = home.token_file.read_text()
    home.prepare()
    assert home.token_file.read_text() == before


def test_a_second_holder_is_told_who_runs_where(home: Home) -> None:
    state.write(home, a_state())
    with state.lock(home), pytest.raises(CellError) as caught, state.lock(home):
        pass
    assert str(caught.value) == (
        f"a cell already runs (pid {os.getpid()}) at http://127.0.0.1:10000: "
        "medrec status, medrec down"
    )


def test_processes_that_an_earlier_cell_left_are_named(home: Home) -> None:
    with subprocess.Popen(["sleep", "30"], start_new_session=True) as child:
        try:
            state.write(home, a_state(sessions=(child.pid,), started=time.time(), charged=()))
            with pytest.raises(CellError, match=rf"left processes behind \({child.pid}\)"):
                state.refuse_if_running(home)
        finally:
            child.kill()
    state.refuse_if_running(home)


def test_a_state_file_that_is_damaged_is_an_error_and_not_no_cell(home: Home) -> None:
    home.state_file.write_text("{")
    with pytest.raises(CellError, match="cannot be read"):
        state.read(home)


def test_the_environment_chooses_the_home(tmp_path: Path) -> None:
    assert state.home({"MEDREC_HOME": str(tmp_path)}).path == tmp_path.resolve()
    assert state.home({}).path.name == ".medrec"
