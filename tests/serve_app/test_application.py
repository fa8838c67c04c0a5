from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from fastapi import FastAPI
from pydantic import ValidationError

from configs.args import ApiArgs
from configs.budgets import Budget, ray_resources
from configs.reader import ConfigError
from deployments.admission import BudgetsMissing
from deployments.cell.state import HOME_VARIABLE
from deployments.data.accounts import signing
from deployments.data.seal import keys
from deployments.options import REQUIRED
from serve_app.application import MAX_ONGOING_REQUESTS, Api, build, write_log_lines
from serve_app.chat.handler import MAX_CHATS


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    given = ray_resources({"api": Budget(memory_gb=8, cpu=2, metal_cores=0, neural_cores=0)})
    monkeypatch.setattr(ray, "cluster_resources", lambda: given)
    return given


@pytest.fixture
def medrec_log() -> Iterator[logging.Logger]:
    log = logging.getLogger("medrec")
    kept = (list(log.handlers), log.level, log.propagate)
    log.handlers.clear()
    yield log
    log.handlers[:], log.level, log.propagate = kept


def test_the_application_is_one_deployment_of_the_api_node_with_every_option_set(
    budgets: dict[str, float],
) -> None:
    deployment = build(ApiArgs())._bound_deployment
    assert deployment.name == "api"
    assert set(deployment._deployment_config.user_configured_option_names) >= REQUIRED
    resources = deployment.ray_actor_options["resources"]
    assert resources
    assert all(name.startswith("api_") for name in resources)


def test_serve_lets_more_requests_in_than_the_application_takes_chats(
    budgets: dict[str, float],
) -> None:
    args = ApiArgs()
    deployment = build(args)._bound_deployment
    # Streams of alerts come on top: as many as there may be leave the requests their room.
    requests = deployment.max_ongoing_requests - args.records.alerts.max_streams
    assert requests == MAX_ONGOING_REQUESTS > MAX_CHATS


def test_the_autoscaler_gets_the_configured_range(budgets: dict[str, float]) -> None:
    args = ApiArgs.model_validate({"replicas": {"min": 1, "max": 3}})
    config = build(args)._bound_deployment._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas) == (1, 3)


def test_a_replica_builds_its_own_asgi_application_without_a_database(
    medrec_log: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    keys.create(tmp_path / "secrets")
    signing.create(tmp_path / "secrets", demo=False)
    app = Api(ApiArgs()).__serve_build_asgi_app__()
    assert isinstance(app, FastAPI)
    paths = set(app.openapi()["paths"])
    assert {"/v1/chat/completions", "/v1/models", "/metrics", "/v1/ai/decisions"} <= paths


def test_log_lines_are_written_once_as_they_are(
    medrec_log: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    write_log_lines()
    write_log_lines()
    logging.getLogger("medrec.access").info("%s", '{"event": "request"}')
    assert capfd.readouterr().err == '{"event": "request"}\n'


def test_args_that_are_not_the_applications_are_refused() -> None:
    with pytest.raises(ValidationError):
        build({"replica": {}})


def test_a_ray_without_budgets_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", dict)
    with pytest.raises(BudgetsMissing, match="virtual node api"):
        build({})


def test_more_than_the_budget_is_refused_at_once(budgets: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="memory_gb"):
        build({"resources": {"memory_gb": 100.0, "cpu": 0.1}})


def test_of_uvicorns_complaints_only_the_one_about_refused_websockets_is_dropped(
    medrec_log: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = logging.getLogger("uvicorn.error")
    monkeypatch.setattr(log, "filters", [])
    # A server of another test may have set it higher.
    caplog.set_level(logging.ERROR, log.name)
    write_log_lines()
    log.error("ASGI callable returned without completing handshake.")
    log.error("Exception in ASGI application\n")
    assert [record.msg for record in caplog.records] == ["Exception in ASGI application\n"]
