"""`/v1/break-glass`: open a record in an emergency; see and judge who did."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray.util.metrics import Counter

from deployments.data.errors import Invalid
from deployments.data.records.break_glass import MAX_COUNT, MAX_REASON, MIN_REASON, BreakGlass
from deployments.data.records.grants import Grant as Granted
from serve_app import paging
from serve_app.auth import bodies, described
from serve_app.auth.guard import caller_of

_NO_NUL = r"^[^\x00]*$"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Identifier(_Body):
    """A patient's identifier, as in the Patient resource: a CPF, a CNS, a number of the house."""

    system: str = Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x20]+$")
    value: str = Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f]+$")


class BreakGlassRequest(_Body):
    """Who is to be opened, by exactly one of `patient` and `identifier`, and why."""

    patient: str | None = Field(default=None, pattern=r"^Patient/[A-Za-z0-9.-]{1,64}$")
    identifier: Identifier | None = None
    reason: str = Field(min_length=MIN_REASON, max_length=MAX_REASON, pattern=_NO_NUL)

    @model_validator(mode="after")
    def _exactly_one(self) -> BreakGlassRequest:
        if (self.patient is None) == (self.identifier is None):
            raise ValueError("give either patient or identifier")
        return self


class ReviewRequest(_Body):
    """What was found of a break-glass access."""

    verdict: Literal["justified", "unjustified"]
    note: Annotated[str, Field(min_length=1, max_length=2000, pattern=_NO_NUL)] | None = None


class ReviewShown(BaseModel):
    """Who judged it, and how."""

    reviewer: str
    verdict: Literal["justified", "unjustified"]
    note: str | None
    reviewed_at: datetime


class GrantShown(BaseModel):
    """One break-glass access. `review` is null until somebody has judged it."""

    id: str
    account: str
    practitioner: str
    patient: str = Field(description="Reference, `Patient/…`.")
    request_id: str
    reason: str
    granted_at: datetime
    expires_at: datetime
    review: ReviewShown | None


class GrantList(BaseModel):
    """A page of them, newest first; `next` is the `cursor` of the following page."""

    grants: list[GrantShown]
    next: str | None


def break_glass_routes(break_glass: BreakGlass) -> APIRouter:
    """The routes: to be mounted without a prefix, behind the guard."""
    router = APIRouter(tags=["break-glass"])
    alerts = Counter("medrec_break_glass", "Records opened by break-glass, each to be reviewed.")
    _add_open(router, break_glass, alerts)
    _add_list(router, break_glass)
    _add_review(router, break_glass)
    return router


def _add_open(router: APIRouter, break_glass: BreakGlass, alerts: Counter) -> None:
    @router.post(
        "/v1/break-glass",
        summary="Open a patient's record in an emergency",
        status_code=201,
        response_model=GrantShown,
        responses=_problems(403, 404, 409, 412, 422, body=True),
        openapi_extra=_with_body(BreakGlassRequest, _IDEMPOTENCY_KEY),
    )
    async def open_record(request: Request) -> Response:
        body = await bodies.read(request, BreakGlassRequest)
        asked = body.identifier
        grant, fresh = await break_glass.open(
            caller_of(request.scope),
            reason=body.reason,
            patient=body.patient.removeprefix("Patient/") if body.patient else None,
            identifier=(asked.system, asked.value) if asked else None,
        )
        if fresh:
            alerts.inc()
        return bodies.answer(_shown(grant), 201)


def _add_list(router: APIRouter, break_glass: BreakGlass) -> None:
    @router.get(
        "/v1/break-glass",
        summary="Who opened what, newest first",
        response_model=GrantList,
        responses=_problems(400, 403),
        openapi_extra={"parameters": _LIST_PARAMETERS},
    )
    async def list_grants(request: Request) -> Response:
        reviewed, page = _asked(request)
        grants, further = await break_glass.listed(
            caller_of(request.scope), reviewed=reviewed, count=page.count, cursor=page.cursor
        )
        return bodies.answer(GrantList(grants=[_shown(each) for each in grants], next=further))


def _add_review(router: APIRouter, break_glass: BreakGlass) -> None:
    @router.post(
        "/v1/break-glass/{id}/review",
        summary="Judge one, once and for all",
        response_model=GrantShown,
        responses=_problems(403, 404, 409, body=True),
        openapi_extra=_with_body(ReviewRequest, _ID),
    )
    async def review(request: Request) -> Response:
        body = await bodies.read(request, ReviewRequest)
        grant = await break_glass.review(
            caller_of(request.scope),
            request.path_params["id"],
            verdict=body.verdict,
            note=body.note,
        )
        return bodies.answer(_shown(grant))


def _shown(grant: Granted) -> GrantShown:
    review = grant.review
    return GrantShown(
        id=grant.id,
        account=grant.account,
        practitioner=grant.practitioner,
        patient=f"Patient/{grant.patient}",
        request_id=grant.request_id,
        reason=grant.reason,
        granted_at=grant.granted_at,
        expires_at=grant.expires_at,
        review=ReviewShown(
            reviewer=review.reviewer,
            verdict=review.verdict,
            note=review.note,
            reviewed_at=review.reviewed_at,
        )
        if review
        else None,
    )


def _asked(request: Request) -> tuple[bool | None, paging.Asked]:
    """Whether reviewed ones are wanted, others or both, and the page."""
    page = paging.asked(request, "reviewed", most=MAX_COUNT)
    word = page.others.get("reviewed")
    if word not in (None, "true", "false"):
        raise Invalid("reviewed takes true or false.", param="reviewed")
    return None if word is None else word == "true", page


_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "format": "uuid"},
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again: the same access, not a second one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_LIST_PARAMETERS = [
    {"name": "reviewed", "in": "query", "required": False, "schema": {"type": "boolean"}},
    *paging.parameters(MAX_COUNT),
]
_MEANINGS = {
    412: "Several patients have this identifier.",
    422: "The Idempotency-Key was used for another request.",
}


def _with_body(shape: type[BaseModel], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {**described.json_body(shape), "parameters": list(parameters)}


def _problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route, as problem+json."""
    found = described.problems(*(s for s in statuses if s not in _MEANINGS), body=body)
    content = found[500]["content"]
    for status in statuses:
        if status in _MEANINGS:
            found[status] = {"description": _MEANINGS[status], "content": content}
    return found
