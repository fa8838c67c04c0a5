"""`POST /internal/acts`: what the site's edges decide and what drills find, put on record by a cell."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import Field, ValidationError

from configs.args import Strict
from deployments.data.audit.chain import Audit
from deployments.data.audit.entry import AuditEntry
from deployments.data.errors import Invalid, TooLarge
from serve_app.internal.gate import HOST
from serve_app.trace import trace_of

MAX_BODY = 65_536
Detail = Annotated[str, Field(max_length=400)] | int | float | bool | None


class Act(Strict):
    """One act of a host: its details hold names of hosts, figures and reasons, never a patient's."""

    action: Literal["site-decision", "drill"]
    outcome: Literal["success", "failed"] = "success"
    details: dict[Annotated[str, Field(max_length=40)], Detail] = Field(max_length=40)


def act_routes(audit: Audit, organization: str) -> APIRouter:
    """The route. 204: on this machine's disk, and in the chain soon (docs/audit.md)."""
    routes = APIRouter()

    @routes.post("/internal/acts", include_in_schema=False)
    async def record(request: Request) -> Response:
        act = _act(await request.body())
        details: dict[str, Any] = dict(act.details)
        await audit.journal(
            AuditEntry(
                action=act.action,
                outcome=act.outcome,
                actor=request.scope[HOST],
                actor_kind="host",
                role="service",
                organization=organization,
                request_id=trace_of(request.scope).request_id,
                purpose="HOPERAT",
                details=details,
            )
        )
        return Response(status_code=204)

    return routes


def _act(body: bytes) -> Act:
    if len(body) > MAX_BODY:
        raise TooLarge("An act is shorter than this.")
    try:
        return Act.model_validate_json(body)
    except ValidationError as error:
        names = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
        raise Invalid(f"This is no act of a host: {names or 'not JSON'}") from None
