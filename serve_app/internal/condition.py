"""`GET /internal/condition`: what this cell knows of its own fitness, for the stewards of the edges."""

from __future__ import annotations

import orjson
from fastapi import APIRouter, Response

from deployments.cell import condition
from deployments.cell.state import Home


def condition_routes(home: Home) -> APIRouter:
    """The route; a read of one small file."""
    routes = APIRouter()

    @routes.get("/internal/condition", include_in_schema=False)
    def told() -> Response:
        headers = {"cache-control": "no-store"}
        return Response(
            orjson.dumps(condition.read(home)), media_type="application/json", headers=headers
        )

    return routes
