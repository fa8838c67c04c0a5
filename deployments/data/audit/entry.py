"""One entry of the audit: what happened, by whom, to what; ids and hashes, never text."""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
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
    *("alert-raise", "alert-delivery", "alert-acknowledge", "alert-escalate", "alert-resolve"),
    *("account-change", "key-change", "seal", "audit-read", "audit-verify", "audit-anchor"),
    *("start", "stop", "configuration", "migration"),
    *("site-decision", "drill"),
    *("emergency", "emergency-note", "emergency-review", "emergency-return"),
)

MAX_FIELD = 256
MAX_DETAILS_BYTES = 65_536
_NUL = b"\\u0000"
_REPLACED = "\N{REPLACEMENT CHARACTER}"


def time_ordered_id() -> uuid.UUID:
    """A UUID of version 7 (RFC 9562): new ids lie together in the chain's unique index."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value &= ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=value | 0x7 << 76 | 0x2 << 62)


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What the chain keeps of one act. `details` holds ids, codes, counts and hashes alone.

    `patient` is a bare id. An act on several patients names them in `details["patients"]`, a list of
    bare ids, and is found by each of them.

    What a client sent may stand in it (a device, an id that does not exist), so texts are cut to
    256 characters and freed of what PostgreSQL cannot hold: no act goes unrecorded for its form.
    """

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
    id: uuid.UUID = field(default_factory=time_ordered_id)
    at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"no such action: {self.action}")
        for name in _TEXTS:
            text = getattr(self, name)
            if text is not None and (len(text) > MAX_FIELD or not text.isprintable()):
                object.__setattr__(self, name, _printable(text[:MAX_FIELD]))

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
                "details": orjson.Fragment(_details(self.details)),
            },
            option=orjson.OPT_SORT_KEYS,
        )


_TEXTS = tuple(
    entry.name for entry in fields(AuditEntry) if entry.type in ("str", "str | None", "Outcome")
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


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else _REPLACED for c in text)


def _details(details: Mapping[str, Any]) -> bytes:
    """The details as JSON that PostgreSQL can hold; beyond the limit their size and hash alone."""
    try:
        raw = orjson.dumps(details, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # a lone surrogate, a key or value that JSON does not know
        raw = orjson.dumps(_plain(details), option=orjson.OPT_SORT_KEYS)
    if _NUL in raw:
        raw = orjson.dumps(_plain(orjson.loads(raw)), option=orjson.OPT_SORT_KEYS)
    if len(raw) > MAX_DETAILS_BYTES:
        cut = {"cut_bytes": len(raw), "cut_sha256": hashlib.sha256(raw).hexdigest()}
        return orjson.dumps(cut, option=orjson.OPT_SORT_KEYS)
    return raw


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_printable(str(key)): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(entry) for entry in value]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return value
    return _printable(str(value))
