"""One entry of the audit: what happened, by whom, to what; ids and hashes, never text."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

from deployments.data.principal import Caller

# 0 success, 4 minor failure (a denial, a bad request), 8 serious failure, 12 major failure:
# AuditEvent.outcome of FHIR R4.
Outcome = Literal["success", "denied", "failed", "interrupted"]

# Every action there is; AuditEvent's type, subtype and action follow from it (audit/fhir.py).
ACTIONS = (
    *("sign-in", "sign-out", "refresh", "step-up", "passkey-registered", "password-changed"),
    *("access", "read", "vread", "history", "search", "everything", "create", "update", "delete"),
    *("transaction", "upload", "download", "export", "erase", "purge"),
    *("ai-request", "ai-answer", "ai-decision", "ai-switch"),
    *("break-glass", "break-glass-review", "consent-refusal"),
    *("account-change", "key-change", "seal", "audit-read", "audit-verify", "audit-anchor"),
    *("start", "stop", "configuration", "migration"),
)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What the chain keeps of one act. `details` holds ids, codes, counts and hashes alone."""

    action: str
    outcome: Outcome
    actor: str
    actor_kind: str
    role: str
    organization: str
    request_id: str = ""
    address: str = ""
    device: str = ""
    purpose: str = "TREAT"
    patient: str | None = None
    resource: str | None = None  # "Observation/9f…", or the type alone for a search
    details: dict[str, Any] = field(default_factory=dict)
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no such action: {self.action}")

    def body(self) -> bytes:
        """The canonical JSON (sorted keys, UTF-8) that the chain hashes and keeps as it is."""
        return orjson.dumps(
            {
                "id": str(self.id),
                "at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="microseconds"),
                "action": self.action,
                "outcome": self.outcome,
                "actor": self.actor,
                "actor_kind": self.actor_kind,
                "role": self.role,
                "organization": self.organization,
                "request_id": self.request_id,
                "address": self.address,
                "device": self.device,
                "purpose": self.purpose,
                "patient": self.patient,
                "resource": self.resource,
                "details": self.details,
            },
            option=orjson.OPT_SORT_KEYS,
        )


def entry_of(
    caller: Caller,
    action: str,
    outcome: Outcome = "success",
    *,
    patient: str | None = None,
    resource: str | None = None,
    **details: Any,
) -> AuditEntry:
    """The entry of something that `caller` does."""
    who = caller.principal
    return AuditEntry(
        action=action,
        outcome=outcome,
        actor=who.id,
        actor_kind=who.kind,
        role=who.role,
        organization=who.organization,
        request_id=caller.request_id,
        address=caller.address,
        device=caller.device,
        purpose=caller.purpose,
        patient=patient,
        resource=resource,
        details=details,
    )
