"""Every deployment of every config sets each Serve default that hurts, within its own budget."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.serve._private.build_app import build_app
from ray.serve._private.config import DeploymentConfig

from configs.args import Replicas, Resources
from configs.budgets import plan, ray_resources, scaled
from configs.reader import PROJECT_ROOT, read_yaml
from deployments.admission import BudgetsMissing
from deployments.options import REQUIRED, serve_options

CONFIGS = sorted((PROJECT_ROOT / "configs").glob("*.yaml"))
SITES = [path for path in CONFIGS if "applications" in read_yaml(path)]
GIVEN = ray_resources(scaled(plan().machine))


def build(application: dict[str, Any]) -> dict[str, Any]:
    module, _, function = application["import_path"].partition(":")
    app = getattr(importlib.import_module(module), function)(application["args"])
    built = build_app(app, name=application["name"])
    return {deployment.name: deployment for deployment in built.deployments}


@pytest.fixture
def full_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ray with the plan's budgets, and every model folder in its place."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: GIVEN)
    monkeypatch.setattr("deployments.ai.application.check_folder", lambda folder: None)


@pytest.mark.parametrize("site", SITES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("full_machine")
def test_every_deployment_sets_every_default_that_hurts(site: Path) -> None:
    seen = set()
    for application in read_yaml(site)["applications"]:
        for name, deployment in build(application).items():
            seen.add(name)
            config: DeploymentConfig = deployment._deployment_config
            chosen = config.user_configured_option_names
            assert not REQUIRED - chosen, f"{name} leaves {REQUIRED - chosen} to Serve"
            assert {"num_replicas", "autoscaling_config"} & chosen, name
            assert config.max_ongoing_requests > 5, name
            assert 0 < config.max_queued_requests < 10_000, name
            assert config.backpressure_config is not None
            assert config.backpressure_config.status_code == 429, name
            assert config.backpressure_config.retry_after_s, name
            assert config.max_surge_percent > 0, name
            assert config.health_check_period_s <= 2, name
            assert config.health_check_timeout_s <= 10, name
            if config.autoscaling_config is not None:
                assert config.autoscaling_config.downscale_delay_s < 600, name
                assert config.autoscaling_config.look_back_period_s < 30, name
    assert {"cell", "custodian", "api"} < seen


@pytest.mark.parametrize("site", SITES, ids=lambda path: path.stem)
@pytest.mark.usefixtures("full_machine")
def test_every_deployment_draws_on_its_own_node_only(site: Path) -> None:
    for application in read_yaml(site)["applications"]:
        for name, deployment in build(application).items():
            options = deployment.ray_actor_options
            assert options["num_cpus"] == 0, name
            assert options["resources"], name
            pools = {resource.split("_")[0] for resource in options["resources"]}
            assert pools == {application["name"]}, name


@pytest.mark.parametrize("site", SITES, ids=lambda path: path.stem)
def test_serves_own_proxy_is_bound_and_limited(site: Path) -> None:
    raw = read_yaml(site)
    options = raw["http_options"]
    assert options["host"] == "127.0.0.1"
    assert options["keep_alive_timeout_s"] > 0
    limits = [app["args"]["limits"] for app in raw["applications"] if app["name"] == "api"]
    assert all(options["request_timeout_s"] > entry["request_timeout_s"] for entry in limits)


@pytest.mark.parametrize("application", ["ai", "data", "api"])
def test_a_ray_without_budgets_is_refused_with_the_line_that_gives_them(
    application: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    raw = read_yaml(PROJECT_ROOT / "configs" / "local.yaml")
    [block] = [app for app in raw["applications"] if app["name"] == application]
    with pytest.raises(BudgetsMissing) as refused:
        build(block)
    said = str(refused.value)
    assert said.startswith(f"this Ray has no resources of the virtual node {application};")
    assert "ray start --head" in said
    assert f'"{application}_memory_mb"' in said


@pytest.mark.usefixtures("full_machine")
def test_a_maximum_that_the_running_ray_cannot_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {**GIVEN, "ai_memory_mb": 6000.0})
    raw = read_yaml(PROJECT_ROOT / "configs" / "local.yaml")
    [block] = [app for app in raw["applications"] if app["name"] == "ai"]
    with pytest.raises(Exception, match="memory_gb") as refused:
        build(block)
    said = str(refused.value)
    assert "pool ai is asked for 7 memory_gb" in said
    assert "gemma3-demo (2+1)×2" in said


@pytest.mark.parametrize(("most", "surge"), [(1, 1), (2, 1), (3, 1), (3, 2), (7, 3), (100, 1)])
def test_a_rolling_update_starts_at_most_surge_replicas_at_any_size(most: int, surge: int) -> None:
    options = serve_options(
        "ai",
        "m",
        Replicas(min=1, max=most, surge=surge),
        Resources(memory_gb=1.0, cpu=0.1),
        max_ongoing_requests=10,
        max_queued_requests=10,
        request_timeout_s=60.0,
    )
    for target in range(1, most + 1):
        started = (options["max_surge_percent"] * target + 99) // 100  # as Serve rounds
        assert 1 <= started <= surge


def test_a_replica_that_leaves_may_finish_its_longest_request() -> None:
    options = serve_options(
        "ai",
        "m",
        Replicas(),
        Resources(memory_gb=1.0, cpu=0.1),
        max_ongoing_requests=10,
        max_queued_requests=10,
        request_timeout_s=600.0,
    )
    assert options["graceful_shutdown_timeout_s"] > 600
