"""Builds the application `data`: its one deployment, the custodian."""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve import Application

from configs.args import DataArgs
from configs.reader import Demand
from deployments.admission import admit
from deployments.options import serve_options

NAME = "data"
# A job is broken off when the replica leaves; each is safe to repeat.
DRAIN_S = 10.0


def build(args: dict[str, Any] | DataArgs) -> Application:
    """The application for `args` (see configs/args.py).

    Raises `ValidationError` for args that are not those of the application, `BudgetsMissing` on a
    Ray without budgets, and `ConfigError` for a demand beyond them.
    """
    from deployments.data.custodian import Custodian

    data = DataArgs.model_validate(args)
    admit(NAME, demands(data))
    options = serve_options(
        NAME,
        "custodian",
        data.replicas,
        data.custodian,
        max_ongoing_requests=16,
        max_queued_requests=16,
        request_timeout_s=DRAIN_S,
    )
    return serve.deployment(**options)(Custodian).bind(data.model_dump(mode="json"))


def demands(data: DataArgs) -> list[Demand]:
    """What the application's deployment asks of the virtual node at its most replicas."""
    return [Demand(NAME, "args.custodian", "custodian", data.replicas, data.custodian)]
