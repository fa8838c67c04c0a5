"""What Serve's REST answer means for the one who waits."""

from __future__ import annotations

from typing import Any

from deployments.cell.serve_api import cause, judge

TRACEBACK = """Deploying app 'ai' failed with exception:
Traceback (most recent call last):
  File "/x/api.py", line 1, in build
    raise ConfigError(file, problems)
configs.reader.ConfigError: args: too much
args: and more
"""


def application(status: str, **facts: Any) -> dict[str, Any]:
    return {"status": status, "message": "", "deployments": {}, **facts}


def test_all_running_is_done() -> None:
    details = {"applications": {"ai": application("RUNNING"), "api": application("RUNNING")}}
    assert judge(details, ["ai", "api"]).action == "done"


def test_one_that_still_starts_is_waited_for_with_its_replicas_counted() -> None:
    deployment = {
        "status": "UPDATING",
        "target_num_replicas": 2,
        "replicas": [{"state": "RUNNING"}, {"state": "STARTING"}],
    }
    details = {
        "applications": {
            "ai": application("DEPLOYING", deployments={"one": deployment}),
            "api": application("RUNNING"),
        }
    }
    decision = judge(details, ["ai", "api"])
    assert decision.action == "wait"
    assert decision.reason == "ai deploying (one 1/2), api running"


def test_one_that_serve_does_not_know_yet_is_waited_for() -> None:
    assert judge({"applications": {}}, ["ai"]).reason == "ai not_started"


def test_one_that_failed_fails_with_the_reason_and_not_the_calls() -> None:
    details = {"applications": {"ai": application("DEPLOY_FAILED", message=TRACEBACK)}}
    decision = judge(details, ["ai", "api"])
    assert decision.action == "fail"
    assert decision.reason == (
        "application ai failed to deploy: configs.reader.ConfigError: args: too much\n"
        "args: and more"
    )
    assert decision.detail == TRACEBACK.strip()


def test_one_whose_deployment_failed_fails_with_what_its_replica_said() -> None:
    failed = {"status": "DEPLOY_FAILED", "message": TRACEBACK, "replicas": []}
    healthy = {"status": "HEALTHY", "message": "never mind", "replicas": []}
    told = application(
        "DEPLOY_FAILED",
        message="Failed to update the deployments ['one'].",
        deployments={"one": failed, "two": healthy},
    )
    decision = judge({"applications": {"ai": told}}, ["ai"])
    assert decision.reason == (
        "application ai failed to deploy: Failed to update the deployments ['one']. "
        "configs.reader.ConfigError: args: too much\nargs: and more"
    )
    assert TRACEBACK.strip() in decision.detail


def test_a_message_without_calls_is_its_own_cause() -> None:
    assert cause("The deployment failed to start 3 times.") == (
        "The deployment failed to start 3 times."
    )
