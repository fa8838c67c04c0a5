"""Serve's options for every deployment: each default that hurts (docs/serving.md) is set here.

A deployment gets its options from `serve_options` and from nowhere else; a test builds the
applications of every config and holds each deployment to the list.
"""

from __future__ import annotations

from typing import Any

from ray.serve.config import AutoscalingConfig, BackpressureConfig, RequestRouterConfig

from configs.args import Replicas, Resources
from configs.budgets import actor_resources

RETRY_AFTER_S = 1.0
DRAIN_MARGIN_S = 30.0
METRICS_INTERVAL_S = 1.0
LOOK_BACK_PERIOD_S = 3.0

# Serve's own defaults hurt; a deployment that leaves one of these out fails a test.
REQUIRED = frozenset(
    {
        "max_ongoing_requests",
        "max_queued_requests",
        "backpressure_config",
        "graceful_shutdown_timeout_s",
        "graceful_shutdown_wait_loop_s",
        "health_check_period_s",
        "health_check_timeout_s",
        "max_constructor_retry_count",
        "max_surge_percent",
        "rolling_update_percentage",
    }
)


def serve_options(
    pool: str,
    name: str,
    replicas: Replicas,
    resources: Resources,
    *,
    max_ongoing_requests: int,
    max_queued_requests: int,
    request_timeout_s: float,
    router: str | None = None,
) -> dict[str, Any]:
    """Keyword arguments of `serve.deployment` for deployment `name` of virtual node `pool`.

    `max_ongoing_requests` counts per replica and `max_queued_requests` per caller; over the second
    a caller is refused with 429. A replica that leaves may finish what it has for as long as a
    request may take (`request_timeout_s`). `router` is the import path of a request router class.
    """
    options: dict[str, Any] = {
        "name": name,
        "max_ongoing_requests": max_ongoing_requests,
        "max_queued_requests": max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=429, retry_after_s=RETRY_AFTER_S),
        "graceful_shutdown_timeout_s": request_timeout_s + DRAIN_MARGIN_S,
        "graceful_shutdown_wait_loop_s": 1.0,
        # A dead replica is noticed in a second. A hung one is killed after three misses, 15 s:
        # less would kill a replica that two busy cores starve.
        "health_check_period_s": 1.0,
        "health_check_timeout_s": 5.0,
        "max_constructor_retry_count": 3,
        # Any percentage rounds up to a whole replica: floor(100·surge/max) of the target, which is
        # `max` at most, never starts more than `surge` of them beside it.
        "max_surge_percent": max(1, min(100, 100 * replicas.surge // replicas.max)),
        "rolling_update_percentage": min(1.0, replicas.surge / replicas.max),
        "ray_actor_options": {"num_cpus": 0, "resources": actor_resources(pool, resources)},
        **_size(replicas),
    }
    if router is not None:
        options["request_router_config"] = RequestRouterConfig(request_router_class=router)
    return options


def _size(replicas: Replicas) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        initial_replicas=replicas.min,
        max_replicas=replicas.max,
        target_ongoing_requests=replicas.target_ongoing_requests,
        upscale_delay_s=replicas.upscale_delay_s,
        downscale_delay_s=replicas.downscale_delay_s,
        # Callers report every 10 s and 30 s are averaged unless told: a delay of 3 s would be 40.
        metrics_interval_s=METRICS_INTERVAL_S,
        look_back_period_s=LOOK_BACK_PERIOD_S,
    )
    return {"autoscaling_config": scaling}
