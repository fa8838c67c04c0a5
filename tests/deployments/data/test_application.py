"""The application `data` is one custodian, within the data node's budget."""

from __future__ import annotations

from typing import Any

import pytest
import ray
from pydantic import ValidationError
from ray.serve._private.build_app import build_app

from configs.budgets import plan, ray_resources, scaled
from configs.reader import ConfigError
from deployments.data.application import build


@pytest.fixture(autouse=True)
def full_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ray_resources(scaled(plan().machine))
    monkeypatch.setattr(ray, "cluster_resources", lambda: given)


def test_there_is_exactly_one_custodian_and_one_more_during_an_update() -> None:
    (deployment,) = build_app(build({}), name="data").deployments
    assert deployment.name == "custodian"
    assert deployment._deployment_config.num_replicas == 1
    assert deployment._deployment_config.max_surge_percent == 100
    assert set(deployment.ray_actor_options["resources"]) == {
        "data_memory_mb",
        "data_cpu_millicores",
    }


@pytest.mark.parametrize("args", [{"replicas": 2}, {"records": {"demos": True}}])
def test_what_is_no_setting_is_refused(args: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        build(args)


def test_a_demand_beyond_the_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="pool data is asked for 120 memory_gb"):
        build({"custodian": {"memory_gb": 60.0, "cpu": 0.1}})
