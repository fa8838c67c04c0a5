"""The report of a cell adds up, with the memory guard's figures or without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from configs.args import Resources
from configs.budgets import actor_resources, scaled
from configs.machine import machine
from deployments.cell.ports import Ports
from deployments.cell.processes import Recorded
from deployments.cell.state import Charged, Home, State
from deployments.cell.status import report

EACH = Resources(memory_gb=2.5, cpu=0.25)
MINE = Recorded.of(os.getpid())
assert MINE is not None
STATE = State(
    owner=MINE,
    config="/configs/local.yaml",
    started=1.0,
    ports=Ports().shifted(1000),
    ray_dir="/tmp/medrec-x",
    charged=(Charged("haproxy", "api", MINE),),
)


def details() -> dict[str, Any]:
    """Serve's answer for two replicas of one model, both this process."""
    replica = {"state": "RUNNING", "pid": os.getpid(), "actor_id": "a", "actor_name": "b"}
    options = {"ray_actor_options": {"resources": actor_resources("ai", EACH)}}
    deployment = {
        "status": "HEALTHY",
        "target_num_replicas": 2,
        "deployment_config": options,
        "replicas": [replica, {**replica, "state": "STARTING"}],
    }
    return {"applications": {"ai": {"deployments": {"one": deployment}}}}


def test_reservations_are_those_of_the_replicas_that_exist(tmp_path: Path) -> None:
    pools = report(Home(tmp_path), STATE, details(), None)["pools"]
    assert pools["ai"]["memory_gb"]["reserved"] == 5.0
    assert pools["ai"]["cpu"]["reserved"] == 0.5
    assert pools["api"]["memory_gb"]["reserved"] == 0
    assert pools["ai"]["memory_gb"]["budget"] == scaled(machine())["ai"].memory_gb


def test_without_the_guard_memory_is_the_process_tables_and_haproxy_is_apis(
    tmp_path: Path,
) -> None:
    found = report(Home(tmp_path), STATE, details(), None)
    assert found["guard_answers"] is False
    assert found["pools"]["api"]["memory_gb"]["used"] > 0.01
    assert found["pools"]["data"]["memory_gb"]["used"] == 0
    assert found["deployments"][0]["memory_gb"] > 0.01


def test_with_the_guard_its_figures_and_its_reasons_are_shown(tmp_path: Path) -> None:
    pool: dict[str, Any] = {"used_gb": 9.5, "closed": "ai uses 95 %", "replicas": []}
    pool["replicas"] = [{"pid": os.getpid(), "used_gb": 7.25}]
    found = report(Home(tmp_path), STATE, details(), {"pools": {"ai": pool}, "models": ["one"]})
    assert found["pools"]["ai"]["memory_gb"]["used"] == 9.5
    assert found["closed"] == {"ai": "ai uses 95 %"}
    assert found["addresses"]["api"] == "http://127.0.0.1:9000"
    row = found["deployments"][0]
    assert (row["running"], row["target"]) == (1, 2)
    assert found["models"] == ["one"]
    [haproxy] = found["charges"]
    assert (haproxy["name"], haproxy["node"]) == ("haproxy", "api")
    assert haproxy["memory_gb"] > 0.01
