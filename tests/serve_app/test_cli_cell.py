"""A real cell, from `medrec up` to its last process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import psutil
import psycopg
import pytest
import yaml

from configs.reader import read_yaml
from deployments.cell import state
from deployments.cell.ports import Ports, free_offset
from deployments.cell.processes import members
from deployments.cell.running import deployable
from deployments.data.postgres import APPLICATION, local
from tests.conftest import LOCAL, RunningCell, medrec, start_cell

pytestmark = pytest.mark.cluster
WAIT_S = 60.0


def wait_for(what: str, condition: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.1)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home whose cell is ended whatever the test did."""
    folder = tmp_path / "home"
    yield folder
    found = state.read(state.Home(folder))
    medrec("down", home=folder)
    if found is not None:
        shutil.rmtree(found.ray_dir, ignore_errors=True)


def tiny(tmp_path: Path, serve_port: int = 8001) -> Path:
    """The local config with applications that have no model."""
    raw = read_yaml(LOCAL)
    raw["http_options"]["port"] = serve_port
    for app in raw["applications"]:
        app["import_path"] = f"tests.serve_app.tiny_applications:{app['name']}"
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


def test_status_tells_pools_replicas_models_and_addresses(cell: RunningCell) -> None:
    done = medrec("status", "--json", home=cell.home)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert report["guard_answers"] is True
    assert report["closed"] == {}
    assert report["addresses"]["api"] == cell.base_url
    assert report["models"] == ["gemma3-demo"]
    deployments = {(row["application"], row["deployment"]): row for row in report["deployments"]}
    assert set(deployments) == {
        ("ai", "cell"),
        ("ai", "gemma3-demo"),
        ("data", "custodian"),
        ("api", "api"),
    }
    assert all(row["running"] == len(row["pids"]) > 0 for row in deployments.values())
    memory = report["pools"]["ai"]["memory_gb"]
    assert memory["budget"] >= memory["reserved"] == 2.5
    assert 0.1 < memory["used"] < memory["budget"]
    shown = medrec("status", home=cell.home)
    assert "gemma3-demo" in shown.stdout


def test_starting_twice_says_so_with_pid_and_address(cell: RunningCell) -> None:
    done = medrec("up", "--port-offset", "auto", home=cell.home)
    assert done.returncode == 1
    assert f"a cell already runs (pid {cell.process.pid}) at {cell.base_url}" in done.stderr


def test_haproxy_comes_back_when_it_is_killed(cell: RunningCell) -> None:
    charged = charged_of(cell, "haproxy")
    assert charged.node == "api"
    psutil.Process(charged.process.pid).kill()

    def answers() -> bool:
        try:
            return httpx.get(f"{cell.base_url}/health/live", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    wait_for("another HAProxy", lambda: charged_of(cell, "haproxy") != charged)
    wait_for("an answer", answers)


def test_postgresql_is_charged_to_the_data_node_and_comes_back_when_it_is_killed(
    cell: RunningCell,
) -> None:
    charged = charged_of(cell, "postgres")
    assert charged.node == "data"
    report = json.loads(medrec("status", "--json", home=cell.home).stdout)
    memory = report["pools"]["data"]["memory_gb"]
    assert 0.05 < memory["used"] < memory["budget"]
    psutil.Process(charged.process.pid).kill()
    dsn = local(state.Home(cell.home)).dsn(APPLICATION)

    def answers() -> bool:
        try:
            with psycopg.connect(dsn, connect_timeout=2) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    wait_for("another PostgreSQL", lambda: charged_of(cell, "postgres") != charged)
    wait_for("an answer", answers)


def test_serve_deploy_and_medrec_serve_put_a_config_in_place_of_the_running_one(
    cell: RunningCell, tmp_path: Path
) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(yaml.safe_dump(deployable(LOCAL, cell.ports)))
    deployed = serve_deploy(file, cell.environment)
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    done = medrec("serve", str(LOCAL), home=cell.home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"{LOCAL} runs\n")


def serve_deploy(file: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Ray's own command, as an operator types it."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "serve"), "deploy", str(file)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_ctrl_c_while_it_starts_leaves_no_process(tmp_path: Path, home: Path) -> None:
    cell = start_cell(home, tiny(tmp_path))
    at = state.Home(home)
    wait_for("Ray's processes", lambda: len(members_of(at)) > 3, timeout_s=180)
    found = state.read(at)
    assert found is not None
    assert cell.stop(signal.SIGINT) == 0
    assert found.running() == set()
    assert postgres_of(at) == set()
    assert cell.said().endswith("stopping\nstopped\n")


@pytest.mark.slow
def test_after_a_kill_the_rest_is_named_by_up_and_ended_by_down(tmp_path: Path, home: Path) -> None:
    cell = start_cell(home, tiny(tmp_path))
    at = state.Home(home)
    wait_for("Ray's processes", lambda: len(members_of(at)) > 3, timeout_s=180)
    cell.process.kill()
    cell.process.wait()
    assert members_of(at)
    assert postgres_of(at)
    refused = medrec("up", "--port-offset", "auto", home=home)
    assert refused.returncode == 1
    assert "an earlier cell left processes behind" in refused.stderr
    assert medrec("down", home=home).returncode == 0
    assert members_of(at) == set()
    assert postgres_of(at) == set()


@pytest.mark.slow
def test_serve_deploy_works_after_ray_start_and_down_ends_it(tmp_path: Path, home: Path) -> None:
    offset = free_offset()
    ports = Ports().shifted(offset)
    started = medrec("ray", "start", "--port-offset", str(offset), home=home, timeout_s=240)
    assert started.returncode == 0, started.stderr
    exports = dict(
        line.removeprefix("export ").split("=", 1)
        for line in started.stdout.splitlines()
        if line.startswith("export ")
    )
    wanted = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_DASHBOARD_ADDRESS")
    deployed = serve_deploy(tiny(tmp_path, ports.serve), {name: exports[name] for name in wanted})
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr

    def answers() -> bool:
        try:
            url = f"http://127.0.0.1:{ports.serve}/health/live"
            return httpx.get(url, timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    wait_for("an answer through Serve's proxy", answers, timeout_s=120)
    found = state.read(state.Home(home))
    assert found is not None
    assert postgres_of(state.Home(home))
    assert medrec("down", home=home).returncode == 0
    assert found.running() == set()
    assert postgres_of(state.Home(home)) == set()


def charged_of(cell: RunningCell, name: str) -> state.Charged:
    """The process of this name that the cell's state charges to a node."""
    (found,) = (entry for entry in cell.state.charged if entry.name == name)
    return found


def postgres_of(at: state.Home) -> set[int]:
    """The processes of the home's own PostgreSQL."""
    return local(at).pids()


def members_of(at: state.Home) -> set[object]:
    """The processes of the cell that the state file tells of."""
    found = state.read(at)
    return set(members(found.sessions, found.started)) if found else set()
