"""The routes below `/v1/ai`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from configs.args import SignIn
from deployments.data.errors import Invalid, Unsupported
from deployments.data.interactions.decisions import (
    MAX_LISTED,
    Decision,
    Decisions,
    Interaction,
)
from deployments.data.interactions.switches import CAPABILITIES, Switch, Switches
from deployments.data.scopes import require
from serve_app.ai.shapes import (
    DecisionBody,
    DecisionShape,
    InteractionList,
    InteractionShape,
    InteractionShown,
    SwitchBody,
    SwitchList,
    SwitchShape,
)
from serve_app.auth import bodies
from serve_app.auth.described import json_body, problems
from serve_app.auth.guard import caller_of, require_step_up

DEFAULT_LISTED = 50
_PATIENT = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})")
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


def ai_routes(
    decisions: Decisions, switches: Switches, *, step_up_s: float = SignIn().step_up_s
) -> APIRouter:
    """Every route below `/v1/ai`: to be mounted without a prefix."""
    router = APIRouter(tags=["ai"])
    _add_decisions(router, decisions)
    _add_interactions(router, decisions)
    _add_switches(router, switches, step_up_s)
    return router


def _add_decisions(router: APIRouter, decisions: Decisions) -> None:
    @router.post(
        "/v1/ai/decisions",
        summary="Record what was made of an AI's answer",
        status_code=201,
        response_model=DecisionShape,
        responses=problems(403, 404, 409, body=True),
        openapi_extra=json_body(DecisionBody),
    )
    async def decide(request: Request) -> Response:
        caller = caller_of(request.scope)
        require(caller.principal, "ai:decide")
        _only(request.query_params, ())
        body = await bodies.read(request, DecisionBody)
        made = await decisions.decide(
            caller,
            body.interaction,
            body.decision,
            output_sha256=body.output_sha256,
            reason=body.reason,
        )
        return bodies.answer(_decision(made), 201)


def _add_interactions(router: APIRouter, decisions: Decisions) -> None:
    @router.get(
        "/v1/ai/interactions",
        summary="A patient's AI interactions, without their texts",
        response_model=InteractionList,
        responses=problems(400, 403, 404),
        openapi_extra={"parameters": _LIST_PARAMETERS},
    )
    async def of_patient(request: Request) -> Response:
        caller = caller_of(request.scope)
        require(caller.principal, "ai")
        given = _only(request.query_params, ("patient", "limit", "before"))
        limit = _limit(given.get("limit"))
        before = given.get("before")
        if before is not None and not _ID.fullmatch(before):
            raise Invalid("before should be the id of an interaction.", param="before")
        found = await decisions.of_patient(
            caller, _patient(given.get("patient")), limit=limit, before=before
        )
        listed = [InteractionShape(**_fields(each)) for each in found]
        follows = found[-1].id if len(found) == limit else None
        return bodies.answer(InteractionList(interactions=listed, next=follows))

    @router.get(
        "/v1/ai/interactions/{id}",
        summary="One AI interaction, with its texts while they are kept",
        response_model=InteractionShown,
        responses=problems(400, 403, 404),
        openapi_extra={"parameters": [_parameter("id", "path", _ID.pattern)]},
    )
    async def show(request: Request) -> Response:
        caller = caller_of(request.scope)
        require(caller.principal, "ai")
        _only(request.query_params, ())
        name = request.path_params["id"]
        if not _ID.fullmatch(name):
            raise Invalid("An interaction's id has 1 to 80 letters, digits, - and _.", param="id")
        shown = await decisions.show(caller, name)
        every = [_decision(each) for each in shown.decisions]
        fields = _fields(shown.interaction) | {"decision": every[0] if every else None}
        texts = {part: shown.texts.get(part) for part in ("input", "output")}
        return bodies.answer(InteractionShown(**(fields | texts | {"decisions": every})))


def _add_switches(router: APIRouter, switches: Switches, step_up_s: float) -> None:
    @router.get(
        "/v1/ai/switches",
        summary="What AI is switched on",
        response_model=SwitchList,
        responses=problems(400, 403),
    )
    async def every(request: Request) -> Response:
        caller = caller_of(request.scope)
        require(caller.principal, "ai:switch")
        _only(request.query_params, ())
        found = [_switch(each) for each in await switches.all(caller)]
        return bodies.answer(SwitchList(switches=found))

    @router.put(
        "/v1/ai/switches/{capability}",
        summary="Switch AI off or on, for the site or for one capability",
        response_model=SwitchShape,
        responses=problems(403, body=True),
        openapi_extra=json_body(SwitchBody)
        | {"parameters": [_parameter("capability", "path", "|".join(CAPABILITIES))]},
    )
    async def move(request: Request) -> Response:
        caller = caller_of(request.scope)
        require(caller.principal, "ai:switch")
        require_step_up(caller, step_up_s)
        _only(request.query_params, ())
        body = await bodies.read(request, SwitchBody)
        name = request.path_params["capability"]
        moved = await switches.set(caller, name, enabled=body.enabled, reason=body.reason)
        return bodies.answer(_switch(moved))


def _parameter(name: str, where: str, pattern: str, *, required: bool = True) -> dict[str, Any]:
    schema = {"type": "string", "pattern": f"^({pattern})$"}
    return {"name": name, "in": where, "required": required, "schema": schema}


_LIST_PARAMETERS = [
    _parameter("patient", "query", "Patient/[A-Za-z0-9.-]{1,64}"),
    _parameter("before", "query", _ID.pattern, required=False),
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED},
    },
]


def _only(given: Mapping[str, str], known: tuple[str, ...]) -> dict[str, str]:
    """The query's parameters, each known and given once. Raises `Unsupported` and `Invalid`."""
    pairs: list[tuple[str, str]] = getattr(given, "multi_items", lambda: list(given.items()))()
    if any(name not in known for name, _ in pairs):
        raise Unsupported("A query parameter is not offered here, so it is refused.")
    if len({name for name, _ in pairs}) != len(pairs):
        raise Invalid("A query parameter is given twice.")
    return dict(pairs)


def _patient(given: str | None) -> str:
    found = _PATIENT.fullmatch(given or "")
    if found is None:
        message = "patient is required, as a reference of the form Patient/<id>."
        raise Invalid(message, param="patient")
    return found[1]


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LISTED
    if not (given.isascii() and given.isdigit() and 1 <= int(given[:4]) <= MAX_LISTED):
        raise Invalid(f"limit should be a number from 1 to {MAX_LISTED}.", param="limit")
    return int(given)


def _fields(found: Interaction) -> dict[str, Any]:
    fields = asdict(found)
    fields["patient"] = None if found.patient is None else f"Patient/{found.patient}"
    fields["decision"] = None if found.decision is None else _decision(found.decision)
    return fields


def _decision(made: Decision) -> DecisionShape:
    return DecisionShape(**asdict(made))


def _switch(switch: Switch) -> SwitchShape:
    return SwitchShape(**asdict(switch))
