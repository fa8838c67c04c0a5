"""`GET /internal/condition`: what this cell knows of its own fitness, for the stewards of the edges.

The disk below PostgreSQL is looked at when it is asked for: once it is full, nobody could write it down.
"""

from __future__ import annotations

import shutil
import time
from typing import Any

import orjson
from fastapi import APIRouter, Response

from deployments.cell import condition
from deployments.cell.state import Home


def condition_routes(home: Home) -> APIRouter:
    """The route; a read of one small file, and a look at a disk."""
    routes = APIRouter()

    @routes.get("/internal/condition", include_in_schema=False)
    def told() -> Response:
        headers = {"cache-control": "no-store"}
        return Response(
            orjson.dumps({**condition.read(home), **_disk(home)}),
            media_type="application/json",
            headers=headers,
        )

    return routes


def _disk(home: Home) -> dict[str, Any]:
    try:
        usage = shutil.disk_usage(home.postgres)
    except OSError:
        return {}  # The database is elsewhere.
    return {"disk": {"free_bytes": usage.free, "total_bytes": usage.total, "at": time.time()}}
