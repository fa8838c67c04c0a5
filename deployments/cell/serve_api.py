"""Serve's REST interface on the head node: what `serve deploy` and `serve status` speak."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from deployments.cell.state import CellError

_PATH = "/api/serve/applications/"
_TIMEOUT_S = 30.0
_POLL_S = 0.5
_FAILED = ("DEPLOY_FAILED", "UNHEALTHY")


class DeployFailed(CellError):
    """An application could not be built or started; `detail` is all that Serve says of it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do while an application starts, and why, in a sentence."""

    action: Literal["wait", "done", "fail"]
    reason: str
    detail: str = ""


class ServeApi:
    """One cell's Serve, by its dashboard's address and Ray's token."""

    def __init__(self, dashboard_url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=dashboard_url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,  # a proxy of the network has no business here
        )

    def close(self) -> None:
        """Give up the connection."""
        self._client.close()

    def details(self) -> dict[str, Any]:
        """Applications, deployments and replicas as Serve reports them. Raises `CellError`."""
        try:
            answer = self._client.get(_PATH)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise CellError(f"Serve does not answer: {error}") from error
        return found

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Send a Serve config, as `serve deploy` does. Raises `CellError` with Serve's words."""
        try:
            answer = self._client.put(_PATH, json=config)
        except httpx.HTTPError as error:
            raise CellError(f"Serve did not take the config: {error}") from error
        if answer.status_code != httpx.codes.OK:
            raise CellError(f"Serve refused the config: {answer.text.strip()}")

    def wait_running(
        self,
        names: list[str],
        *,
        timeout_s: float,
        tell: Callable[[str], None],
        still_alive: Callable[[], None],
    ) -> None:
        """Wait until all applications run. Raises `CellError` with the reason if they do not.

        `still_alive` raises if waiting has become pointless.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            still_alive()
            decision = judge(self.details(), names)
            tell(decision.reason)
            if decision.action == "done":
                return
            if decision.action == "fail":
                raise DeployFailed(decision.reason, decision.detail)
            if time.monotonic() > deadline:
                raise CellError(f"not running after {timeout_s:g} s: {decision.reason}")
            time.sleep(_POLL_S)


def judge(details: Mapping[str, Any], names: list[str]) -> Decision:
    """Whether the named applications run, still start, or have failed."""
    applications: Mapping[str, Any] = details.get("applications", {})
    words = []
    for name in names:
        application = applications.get(name, {})
        status = application.get("status", "NOT_STARTED")
        if status == "DEPLOY_FAILED":
            told = [str(application.get("message", "")).strip(), *_failures(application)]
            reason = f"application {name} failed to deploy: {' '.join(map(cause, told))}"
            return Decision("fail", reason, detail="\n".join(told))
        words.append(f"{name} {status.lower()}{_detail(application)}")
    running = all(applications.get(name, {}).get("status") == "RUNNING" for name in names)
    return Decision("done" if running else "wait", ", ".join(words))


def cause(message: str) -> str:
    """What went wrong at the end of a traceback: the exception's own lines, without the calls."""
    if "Traceback (most recent call last)" not in message:
        return message
    lines = message.splitlines()
    last_call = max(index for index, line in enumerate(lines) if line.startswith("  "))
    return "\n".join(lines[last_call + 1 :]).strip() or message


def _failures(application: Mapping[str, Any]) -> list[str]:
    """What Serve says of each deployment that could not be started, or updated."""
    return [
        str(deployment["message"]).strip()
        for deployment in application.get("deployments", {}).values()
        if deployment.get("status") in _FAILED and deployment.get("message")
    ]


def _detail(application: Mapping[str, Any]) -> str:
    """How far each deployment that is not yet healthy has come."""
    parts = []
    for name, deployment in application.get("deployments", {}).items():
        if deployment.get("status") == "HEALTHY":
            continue
        ready = sum(replica.get("state") == "RUNNING" for replica in deployment["replicas"])
        parts.append(f"{name} {ready}/{deployment.get('target_num_replicas', '?')}")
    return f" ({', '.join(parts)})" if parts else ""
