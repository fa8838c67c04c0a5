"""`/v1/mode`, the edge's calls to an emergency cell, emergency notes, the review of an emergency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from configs.args import RecordsArgs
from deployments.data.emergency.activation import Activation, Activations, moment
from deployments.data.emergency.notes import Note, Notes
from deployments.data.emergency.review import Reviews
from deployments.data.emergency.standing import Standing
from deployments.data.errors import Invalid, NotFound
from deployments.edge.modes import shown
from serve_app.auth import bodies, described
from serve_app.auth.guard import caller_of, origin_of
from serve_app.internal.gate import HOST
from serve_app.modes.shapes import (
    ActivateBody,
    Activated,
    ActShown,
    CapabilityShown,
    CopyShown,
    ModeShown,
    NoteBody,
    NoteList,
    NoteShown,
    ReviewShown,
)

_PATIENT = re.compile(r"Patient/([A-Za-z0-9.-]{1,64})")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Emergency:
    """What the routes speak to; `activations` is None on a cell that is no emergency cell."""

    args: RecordsArgs
    standing: Standing
    activations: Activations | None
    notes: Notes
    reviews: Reviews


def mode_routes(emergency: Emergency) -> APIRouter:
    """Every route, to be mounted without a prefix."""
    router = APIRouter(tags=["emergency"])
    _add_mode(router, emergency)
    _add_activation(router, emergency)
    _add_notes(router, emergency.notes)
    _add_review(router, emergency.reviews)
    return router


def _add_mode(router: APIRouter, emergency: Emergency) -> None:
    @router.get(
        "/v1/mode",
        summary="The mode, what works in it, since when, and for how long",
        response_model=ModeShown,
        responses=described.problems(store=False),
        openapi_extra={"security": []},
    )
    async def mode() -> Response:
        return bodies.answer(await _mode(emergency))


def _add_activation(router: APIRouter, emergency: Emergency) -> None:
    limit_s = emergency.args.emergency.copy_max_age_s

    @router.post("/internal/emergency/activate", include_in_schema=False)
    async def activate(request: Request) -> Response:
        body = await bodies.read(request, ActivateBody)
        origin = origin_of(request.scope, deadline_s=emergency.args.deadline_s)
        activation, is_new = await _here(emergency).activate(
            request.scope[HOST],
            reason=body.reason,
            since=moment(body.since),
            request_id=origin.request_id,
            deadline=origin.deadline,
        )
        emergency.standing.forget()
        return bodies.answer(_activated(activation, limit_s, is_new=is_new), 201 if is_new else 200)

    @router.post("/internal/emergency/end", include_in_schema=False)
    async def end(request: Request) -> Response:
        origin = origin_of(request.scope, deadline_s=emergency.args.deadline_s)
        ended = await _here(emergency).end(
            request.scope[HOST], request_id=origin.request_id, deadline=origin.deadline
        )
        emergency.standing.forget()
        return bodies.answer(_activated(ended, limit_s))


def _add_notes(router: APIRouter, notes: Notes) -> None:
    @router.post(
        "/v1/emergency/notes",
        summary="Write a note in an emergency; it is merged back into the records",
        status_code=201,
        response_model=NoteShown,
        responses=described.problems(403, 404, 409, body=True) | _MISMATCH,
        openapi_extra={**described.json_body(NoteBody), "parameters": [_IDEMPOTENCY_KEY]},
    )
    async def write(request: Request) -> Response:
        body = await bodies.read(request, NoteBody)
        note = await notes.write(
            caller_of(request.scope),
            patient=body.patient.removeprefix("Patient/"),
            kind=body.kind,
            text=body.text,
        )
        return bodies.answer(_note(note), 201)

    @router.get(
        "/v1/emergency/notes",
        summary="The newest notes about a patient",
        response_model=NoteList,
        responses=described.problems(400, 403, 404),
        openapi_extra={"parameters": [_PATIENT_PARAMETER]},
    )
    async def listed(request: Request) -> Response:
        given = _parameters(request, {"patient"})
        found = _PATIENT.fullmatch(given.get("patient", ""))
        if found is None:
            raise Invalid("patient should be a reference, Patient/<id>.", param="patient")
        written = await notes.listed(caller_of(request.scope), found[1])
        return bodies.answer(NoteList(notes=[_note(note) for note in written]))


def _add_review(router: APIRouter, reviews: Reviews) -> None:
    @router.get(
        "/v1/emergency/review",
        summary="What was done in an emergency: sessions, reads, notes, chats",
        response_model=ReviewShown,
        responses=described.problems(400, 403, 404),
        openapi_extra={"parameters": _REVIEW_PARAMETERS},
    )
    async def review(request: Request) -> Response:
        given = _parameters(request, {"activation", "after"})
        id, after = given.get("activation"), given.get("after", "0")
        if id is not None and not _UUID.fullmatch(id):
            raise Invalid("activation should be the id of one.", param="activation")
        if not (after.isascii() and after.isdigit() and len(after) <= 18):
            raise Invalid("after should be a sequence number.", param="after")
        page = await reviews.page(caller_of(request.scope), activation=id, after=int(after))
        about = page.activation
        answer = ReviewShown(
            activation=about.id,
            reason=about.reason,
            host=about.host,
            activated_at=about.activated_at,
            over_at=about.over_at,
            counts=page.counts,
            acts=[
                ActShown(
                    seq=act.seq,
                    at=datetime.fromisoformat(act.at),
                    kind=act.kind,
                    action=act.action,
                    outcome=act.outcome,
                    actor=act.actor,
                    role=act.role,
                    device=act.device,
                    patients=list(act.patients),
                    resource=act.resource,
                    request_id=act.request_id,
                )
                for act in page.acts
            ],
            next=page.next_after,
        )
        return bodies.answer(answer)


async def _mode(emergency: Emergency) -> ModeShown:
    args, standing = emergency.args, emergency.standing
    state, last = await standing.state(), await standing.last()
    current = last if state in ("active", "expired") else None
    back = timedelta(seconds=args.emergency.estimate_s)
    return ModeShown(
        mode=standing.mode,
        phase=args.phase,
        state=state,
        since=current.activated_at if current else last.over_at if last else None,
        expires_at=current.expires_at if current else None,
        expected_back_at=current.activated_at + back if current else None,
        reason=current.reason if current else None,
        users=args.emergency.users if standing.mode == "emergency" else None,
        copied=_copied(current, args.emergency.copy_max_age_s) if current else None,
        capabilities=[
            CapabilityShown(name=name, works=works, note=note)
            for name, works, note in shown(standing.mode)
        ],
    )


def _here(emergency: Emergency) -> Activations:
    if emergency.activations is None:
        raise NotFound("This cell is no emergency cell.", code="no_emergency_cell")
    return emergency.activations


def _copied(activation: Activation, limit_s: float) -> CopyShown:
    age_s = activation.copy_age_s
    return CopyShown(
        copied_at=activation.copied_at,
        age_s=age_s,
        within_limit=age_s is not None and age_s <= limit_s,
        patients=activation.patients,
        may_miss=activation.may_miss,
    )


def _activated(activation: Activation | None, limit_s: float, *, is_new: bool = False) -> Activated:
    return Activated(
        activation=activation.id if activation else None,
        is_new=is_new,
        activated_at=activation.activated_at if activation else None,
        expires_at=activation.expires_at if activation else None,
        ended_at=activation.ended_at if activation else None,
        copied=_copied(activation, limit_s) if activation else None,
    )


def _note(note: Note) -> NoteShown:
    return NoteShown(
        id=note.id,
        patient=f"Patient/{note.patient}",
        kind=note.kind,
        text=note.text,
        author=note.account,
        practitioner=f"Practitioner/{note.practitioner}" if note.practitioner else None,
        written_at=note.written_at,
    )


def _parameters(request: Request, known: set[str]) -> dict[str, str]:
    given = request.query_params.multi_items()
    values = dict(given)
    if set(values) - known or len(given) != len(values):
        raise Invalid(f"Each of these once at most, and no other: {', '.join(sorted(known))}.")
    return values


_MISMATCH: dict[int | str, dict[str, Any]] = {
    422: {
        **described.problems(500)[500],
        "description": "The Idempotency-Key was used for another note.",
    }
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body again: the same note, not a second one.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
_PATIENT_PARAMETER = {
    "name": "patient",
    "in": "query",
    "required": True,
    "schema": {"type": "string", "pattern": "^Patient/[A-Za-z0-9.-]{1,64}$"},
}
_REVIEW_PARAMETERS = [
    {
        "name": "activation",
        "in": "query",
        "required": False,
        "description": "Id of an emergency; the newest unless given.",
        "schema": {"type": "string", "format": "uuid"},
    },
    {
        "name": "after",
        "in": "query",
        "required": False,
        "description": "The `next` of the page before.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1, "default": 0},
    },
]
