"""The bodies and answers below `/v1/ai` as schemas, for reading them strictly and for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Reason = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
InteractionId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,80}$")]


class Body(BaseModel):
    """A block of a request: exactly these fields, of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Shape(BaseModel):
    """A block of an answer."""

    model_config = ConfigDict(extra="forbid")


class DecisionBody(Body):
    """What somebody made of an answer. `output_sha256` is that of the text after editing."""

    interaction: InteractionId = Field(description="`x-interaction-id` of the answer: its `id`.")
    decision: Literal["accepted", "edited", "rejected"]
    output_sha256: Hash | None = None
    reason: Reason | None = Field(default=None, description="A code of the hospital's own.")


class DecisionShape(Shape):
    """One decision."""

    id: UUID
    interaction: str
    decision: Literal["accepted", "edited", "rejected"]
    account: str
    at: datetime
    output_sha256: str | None
    reason: str | None


class InteractionShape(Shape):
    """One interaction: by what it was answered, hashes, and the newest decision; no text."""

    id: str
    patient: str | None = Field(description="`Patient/<id>`.")
    account: str
    model: str
    weights_sha256: str
    prompt_version: str
    input_sha256: str
    output_sha256: str | None
    started_at: datetime
    ended_at: datetime | None
    outcome: Literal["success", "failed", "interrupted"] | None = Field(
        description="null while it goes on."
    )
    decision: DecisionShape | None


class InteractionList(Shape):
    """A patient's interactions, the newest first; `next` is the `before` of the next page."""

    interactions: list[InteractionShape]
    next: str | None


class InteractionShown(InteractionShape):
    """One interaction with every decision and, about a patient and while kept, its texts."""

    decisions: list[DecisionShape]
    input: list[dict[str, Any]] | None = Field(description="The messages.")
    output: list[dict[str, Any]] | None = Field(description="The choices, `content` each.")


class SwitchBody(Body):
    """Where a switch is to stand, and why."""

    enabled: bool
    reason: Reason


class SwitchShape(Shape):
    """A switch as it stands; nobody has moved it where `at` is null."""

    capability: str
    enabled: bool
    account: str | None
    reason: str | None
    at: datetime | None


class SwitchList(Shape):
    """Every switch of the caller's organisation."""

    switches: list[SwitchShape]
