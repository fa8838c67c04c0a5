"""Three applications without models, for the tests of what starts and ends them."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from configs.args import Resources
from configs.budgets import actor_resources

surface = FastAPI()


class Idle:
    """Does nothing, on the `ai` or `data` node."""


@serve.ingress(surface)
class Surface:
    """Answers that it lives."""

    @surface.get("/health/live")
    def live(self) -> dict[str, str]:
        return {"status": "live"}


def ai(args: dict[str, Any]) -> serve.Application:
    """The models' place."""
    return _application("ai", "cell", Idle)


def data(args: dict[str, Any]) -> serve.Application:
    """The custodian's place."""
    return _application("data", "custodian", Idle)


def api(args: dict[str, Any]) -> serve.Application:
    """The surface's place."""
    return _application("api", "api", Surface)


def _application(pool: str, name: str, served: type) -> serve.Application:
    resources = actor_resources(pool, Resources(memory_gb=0.2, cpu=0.01))
    options = {"num_cpus": 0, "resources": resources}
    return serve.deployment(name=name, ray_actor_options=options)(served).bind()
