"""What the mode's and the emergency's routes take and answer, for `/openapi.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from deployments.data.emergency.notes import MAX_TEXT, Kind

_NO_NUL = r"^[^\x00]*$"


class Body(BaseModel):
    """A block of a request: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shape(BaseModel):
    """A block of an answer."""

    model_config = ConfigDict(extra="forbid")


class CapabilityShown(Shape):
    """How far the mode does one thing; `note` says what it is, or where it ends."""

    name: str
    works: Literal["yes", "limited", "no"]
    note: str


class CopyShown(Shape):
    """The emergency copy as it was at the take-over."""

    copied_at: datetime | None
    age_s: float | None = Field(description="Its age at the activation; null: there was none.")
    within_limit: bool = Field(description="Whether it was as young as is promised.")
    patients: int
    may_miss: str


class ModeShown(Shape):
    """The mode, since when, what it does, and how long it is expected to last."""

    mode: Literal["normal", "emergency"]
    phase: Literal["mvp", "production"]
    state: Literal["normal", "standby", "active", "expired"]
    since: datetime | None
    expires_at: datetime | None
    expected_back_at: datetime | None
    reason: str | None
    users: int | None = Field(description="The most users at a time; null: as many as come.")
    copied: CopyShown | None
    capabilities: list[CapabilityShown]


class ActivateBody(Body):
    """Why an edge goes to the emergency cell, and since when (Unix time) it found no other."""

    reason: Annotated[str, Field(min_length=1, max_length=512, pattern=_NO_NUL)]
    since: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Activated(Shape):
    """The activation that is open, or was ended now; null where there was none."""

    activation: str | None
    is_new: bool
    activated_at: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    copied: CopyShown | None


class NoteBody(Body):
    """A note about a patient."""

    patient: Annotated[str, Field(pattern=r"^Patient/[A-Za-z0-9.-]{1,64}$")]
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT, pattern=_NO_NUL)]
    kind: Kind = "note"


class NoteShown(Shape):
    """A note as it was written; `author` is an account."""

    id: str
    patient: str
    kind: str
    text: str
    author: str
    practitioner: str | None
    written_at: datetime


class NoteList(Shape):
    """The newest notes about one patient."""

    notes: list[NoteShown]


class ActShown(Shape):
    """One act of an emergency, as the audit chain has it."""

    seq: int
    at: datetime
    kind: Literal["session", "read", "note", "chat", "denial", "other"]
    action: str
    outcome: str
    actor: str
    role: str
    device: str
    patients: list[str]
    resource: str | None
    request_id: str


class ReviewShown(Shape):
    """What was done in one emergency, in the order of the chain; `next` is the following `after`."""

    activation: str
    reason: str
    host: str
    activated_at: datetime
    over_at: datetime
    counts: dict[str, int]
    acts: list[ActShown]
    next: int | None
