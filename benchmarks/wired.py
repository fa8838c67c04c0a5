"""Keeps mlx-lm from raising Metal's wired limit, which panics an M3 Ultra (ml-explore/mlx#3186)."""

from __future__ import annotations

import importlib


def leave_wired_limit_alone() -> None:
    """Call it after the BLAS is loaded and before mlx-lm is used; nothing changes on a CPU."""
    for name in ("mlx_lm.utils", "mlx_lm.generate", "mlx_lm.server"):
        module = importlib.import_module(name)
        vars(module)["maybe_set_recommended_wired_limit"] = _keep


def _keep() -> None:
    return None
