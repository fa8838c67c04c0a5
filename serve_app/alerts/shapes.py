"""The bodies and messages of alerts: read strictly, described in `/openapi.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deployments.data.alerts.alert import Alert, Event, Severity, State, To
from deployments.data.alerts.alerts import MAX_TEXT

_NO_NUL = r"^[^\x00]*$"


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Addressee(_Body):
    """Whom it calls: exactly one of these. `care` is everyone who cares for the patient."""

    practitioner: str | None = Field(default=None, pattern=r"^Practitioner/[A-Za-z0-9.-]{1,64}$")
    role: Literal["physician", "nurse"] | None = None
    care: Literal[True] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Addressee:
        if [self.practitioner, self.role, self.care].count(None) != 2:
            raise ValueError("give exactly one of practitioner, role and care")
        return self

    @property
    def to(self) -> To:
        """The same as the alerts take it."""
        if self.practitioner is not None:
            return To("practitioner", self.practitioner.removeprefix("Practitioner/"))
        return To("role", role=self.role) if self.role is not None else To("care")


class AlertRequest(_Body):
    """An alert to be raised. `kind` is a code of the house's own, `text` says what is the matter."""

    severity: Severity
    kind: str = Field(pattern=r"^[a-z0-9-]{1,64}$")
    to: Addressee
    patient: str | None = Field(default=None, pattern=r"^Patient/[A-Za-z0-9.-]{1,64}$")
    text: str | None = Field(default=None, min_length=1, max_length=MAX_TEXT, pattern=_NO_NUL)


class AddresseeShown(BaseModel):
    """Whom an alert called first."""

    practitioner: str | None
    role: str | None
    care: bool


class AcknowledgementShown(BaseModel):
    """Who took it on."""

    account: str
    role: str
    at: datetime


class AlertShown(BaseModel):
    """An alert as it stands. `due_at` is when others are called; null: nobody more."""

    id: str
    severity: Severity
    kind: str
    origin: Literal["staff", "rule"]
    patient: str | None = Field(description="Reference, `Patient/…`.")
    resource: str | None = Field(description="What a rule judged, `Observation/…`.")
    text: str | None
    raised_by: str = Field(description="The account or key; `rule` for a rule.")
    raised_at: datetime
    to: AddresseeShown
    state: State
    level: int
    everyone: bool = Field(description="Whether all physicians of the organisation are called.")
    due_at: datetime | None
    acknowledgements: list[AcknowledgementShown]


class AlertList(BaseModel):
    """A page of them, newest first; `next` is the `cursor` of the following page."""

    alerts: list[AlertShown]
    next: str | None


def shown(alert: Alert) -> AlertShown:
    """An alert as clients see it."""
    named = alert.to.id
    return AlertShown(
        id=alert.id,
        severity=alert.severity,
        kind=alert.code,
        origin=alert.origin,
        patient=f"Patient/{alert.patient}" if alert.patient else None,
        resource=alert.resource,
        text=alert.text,
        raised_by=alert.raised_by,
        raised_at=alert.raised_at,
        to=AddresseeShown(
            practitioner=f"Practitioner/{named}" if named else None,
            role=alert.to.role,
            care=alert.to.kind == "care",
        ),
        state=alert.state,
        level=alert.level,
        everyone=alert.to_all,
        due_at=alert.due_at,
        acknowledgements=[
            AcknowledgementShown(account=each.account, role=each.role, at=each.at)
            for each in alert.acknowledgements
        ],
    )


def message_of(event: Event) -> dict[str, Any]:
    """An event as a stream tells it."""
    return {
        "type": f"alert.{event.kind}",
        "seq": event.seq,
        "cursor": event.cursor,
        "at": event.at.isoformat(),
        "by": {"account": event.actor, "role": event.role},
        "alert": shown(event.alert).model_dump(mode="json"),
    }
