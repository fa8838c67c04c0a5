"""Asks the memory guard of a running cell what it has measured, MLX's own memory included."""

from __future__ import annotations

import logging
import os
from typing import Any

from deployments.cell import head
from deployments.cell.state import Home, State

_TIMEOUT_S = 5.0


def guard_report(home: Home, state: State) -> dict[str, Any] | None:
    """The guard's report (deployments/ai/cell.py), or None if it does not answer.

    Connects this process to the cell's Ray for the one call; Ray reads its token when it is first
    imported, so nothing may have imported it before.
    """
    variables = head.environment(home, state.ports)
    os.environ.update({name: variables[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")})
    import ray
    from ray import serve

    # Serve reports calls that its own end cuts off; here nobody waits for them.
    logging.getLogger("ray.serve").setLevel(logging.CRITICAL + 1)
    try:
        ray.init(
            address=f"127.0.0.1:{state.ports.gcs}",
            namespace="medrec-status",
            log_to_driver=False,
            logging_level="ERROR",
        )
        handle = serve.get_app_handle("ai")
        answer: dict[str, Any] = handle.report.remote().result(timeout_s=_TIMEOUT_S)
    except Exception:
        # Whatever ails the guard, the rest of the status is still worth showing.
        return None
    finally:
        ray.shutdown()
    return answer
