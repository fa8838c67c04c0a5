"""What works in which mode: the one table of capabilities, and the decision on a request by it.

Pure: no clock, no database, no HTTP. serve_app/modes/gate.py asks it before any route is reached; a test
holds every route of the application to stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Mode = Literal["normal", "emergency"]
# Of the emergency cell: warm and waiting, serving, or over before anybody ended it.
State = Literal["normal", "standby", "active", "expired"]
Works = Literal["yes", "limited", "no"]
CODE = "not_in_emergency"

# Resource types whose records are in the emergency copy; of Observations the last vital signs are.
READABLE = frozenset(
    (
        *("Patient", "AllergyIntolerance", "MedicationRequest", "MedicationStatement"),
        *("Condition", "Observation", "Practitioner", "Organization"),
    )
)


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that the platform does, and how far each mode does it."""

    name: str
    normal: Works
    emergency: Works
    note: str
    # Answered by an emergency cell that nobody has activated, too.
    standby: bool = False


_LIST = (
    Capability("probes", "yes", "yes", "health, metrics, description, the mode itself", True),
    Capability("site", "yes", "yes", "what the hosts of the site say to each other", True),
    Capability("sign-in", "yes", "limited", "enrolled users, name and password, their own device"),
    Capability("chat", "yes", "limited", "basic answers: short, text alone"),
    Capability("transcription", "yes", "limited", "whole recordings of limited length"),
    Capability("emergency-records", "yes", "limited", "reading the emergency copy"),
    Capability("alerts", "yes", "limited", "critical alerts alone"),
    Capability("emergency-notes", "no", "yes", "a journal that is merged back into the records"),
    Capability("emergency-review", "yes", "yes", "what was done in an emergency"),
    Capability("records", "yes", "no", "writing, histories, transactions, other types"),
    Capability("documents", "yes", "no", "files: upload, download"),
    Capability("audit", "yes", "no", "audit events over FHIR"),
    Capability("accounts", "yes", "no", "passkeys, passwords, step-up, other providers"),
    Capability("break-glass", "yes", "no", "opening records of patients in nobody's care"),
    Capability("ai-duties", "yes", "no", "interactions, decisions, switches of AI"),
    Capability("speech", "yes", "no", "text to speech"),
    Capability("realtime", "yes", "no", "transcription while somebody speaks"),
    Capability("images", "yes", "no", "analysis of images"),
    Capability("embeddings", "yes", "no", "vectors of texts"),
    Capability("search", "yes", "no", "search in documents"),
    Capability("jobs", "yes", "no", "work in the background"),
    Capability("reports", "yes", "no", "reports"),
    Capability("analytics", "yes", "no", "analytics"),
)
CAPABILITIES = {capability.name: capability for capability in _LIST}
# Of whatever stands in no rule: nothing is there, or nobody has decided on it.
UNLISTED = Capability("unlisted", "yes", "no", "what no rule permits")


@dataclass(frozen=True)
class Rule:
    """Requests and the capability that they are part of.

    `path` has `{name}` for one segment and `{name:path}` for any number of them; no `methods`: any.
    With `types` the segment `{type}` is one of them.
    """

    capability: str
    path: str
    methods: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The path as an expression."""
        parts = re.split(r"(\{[a-z]+(?::path)?\})", self.path)
        return re.compile("".join(self._part(part) for part in parts))

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is one of these."""
        return (not self.methods or method in self.methods) and bool(self.pattern.fullmatch(path))

    def _part(self, part: str) -> str:
        if not part.startswith("{"):
            return re.escape(part)
        if part.endswith(":path}"):
            return ".*"
        if part == "{type}" and self.types:
            return f"(?:{'|'.join(sorted(self.types))})"
        return "[^/]+"


def _rules(capability: str, *paths: str, methods: str = "") -> Iterator[Rule]:
    for path in paths:
        yield Rule(capability, path, frozenset(methods.split()))


_READ = frozenset(("GET", "HEAD"))
# The first that matches decides.
RULES: tuple[Rule, ...] = (
    *_rules("probes", "/health/{rest:path}", "/metrics", "/openapi.json", "/v1/mode"),
    *_rules("probes", "/.well-known/{rest:path}", "/fhir/.well-known/{rest:path}"),
    *_rules("probes", "/fhir/metadata"),
    *_rules("site", "/internal/{rest:path}"),
    *_rules("sign-in", "/v1/auth/token", "/v1/auth/refresh", "/v1/auth/me", "/v1/auth/logout"),
    *_rules("accounts", "/v1/auth/{rest:path}"),
    *_rules("chat", "/v1/chat/completions", "/v1/models", "/v1/models/{model:path}"),
    *_rules("transcription", "/v1/audio/transcriptions"),
    *_rules("speech", "/v1/audio/speech"),
    *_rules("realtime", "/v1/realtime"),
    *_rules("embeddings", "/v1/embeddings"),
    *_rules("images", "/v1/images/{rest:path}"),
    *_rules("alerts", "/v1/alerts", "/v1/alerts/{rest:path}"),
    *_rules("emergency-review", "/v1/emergency/review"),
    *_rules("emergency-notes", "/v1/emergency/{rest:path}"),
    *_rules("break-glass", "/v1/break-glass", "/v1/break-glass/{rest:path}"),
    *_rules("ai-duties", "/v1/ai/{rest:path}"),
    *_rules("documents", "/v1/documents", "/v1/documents/{rest:path}"),
    *_rules("search", "/v1/search", "/v1/search/{rest:path}"),
    *_rules("jobs", "/v1/jobs", "/v1/jobs/{rest:path}"),
    *_rules("reports", "/v1/reports", "/v1/reports/{rest:path}"),
    *_rules("analytics", "/v1/analytics", "/v1/analytics/{rest:path}"),
    *_rules("documents", "/fhir/Binary", "/fhir/Binary/{rest:path}"),
    *_rules("audit", "/fhir/AuditEvent", "/fhir/AuditEvent/{rest:path}"),
    Rule("emergency-records", "/fhir/{type}/_search", frozenset(("POST",)), READABLE),
    Rule("records", "/fhir/{type}/_history"),
    Rule("emergency-records", "/fhir/{type}", _READ, READABLE),
    Rule("emergency-records", "/fhir/{type}/{id}", _READ, READABLE),
    *_rules("records", "/fhir", "/fhir/{rest:path}"),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a request goes on; otherwise which code and sentence it is refused by."""

    capability: Capability
    permitted: bool
    code: str = ""
    reason: str = ""


def capability_of(method: str, path: str) -> Capability:
    """What a request is part of; `UNLISTED` where no rule knows it."""
    for rule in RULES:
        if rule.matches(method, path):
            return CAPABILITIES[rule.capability]
    return UNLISTED


def decide(mode: Mode, state: State, method: str, path: str) -> Decision:
    """Whether `mode` answers this request, by the table."""
    found = capability_of(method, path)
    if mode == "normal":
        if found.normal != "no":
            return Decision(found, True)
        reason = f"There is no emergency: {found.name} is for emergencies alone."
        return Decision(found, False, "only_in_emergency", reason)
    if found.standby:
        return Decision(found, True)
    if state != "active":
        over = "is over" if state == "expired" else "is not active"
        reason = f"The emergency service {over}: the site itself serves."
        return Decision(found, False, "emergency_not_active", reason)
    if found.emergency == "no":
        reason = f"In an emergency this is not available: {found.name} ({found.note})."
        return Decision(found, False, CODE, reason)
    return Decision(found, True)


@dataclass(frozen=True, slots=True)
class ChatAsked:
    """What of a chat the emergency's limits are about."""

    answer_tokens: int | None
    answers: int
    prompt_chars: int
    kinds: frozenset[str]


@dataclass(frozen=True, slots=True)
class ChatRefusal:
    """The parameter that goes beyond, and the sentence that says so."""

    param: str
    reason: str


def refuse_chat(asked: ChatAsked, *, max_tokens: int, max_prompt_chars: int) -> ChatRefusal | None:
    """Why a chat is more than the basic one of an emergency; None if it is not."""
    if asked.kinds - {"text"}:
        return ChatRefusal("messages", "In an emergency chats are text alone.")
    if asked.answer_tokens is not None and asked.answer_tokens > max_tokens:
        return ChatRefusal(
            "max_tokens", f"In an emergency an answer has at most {max_tokens} tokens."
        )
    if asked.answers > 1:
        return ChatRefusal("n", "In an emergency there is one answer to a chat.")
    if asked.prompt_chars > max_prompt_chars:
        reason = f"In an emergency the messages have at most {max_prompt_chars} characters."
        return ChatRefusal("messages", reason)
    return None


def shown(mode: Mode, among: Sequence[Capability] = _LIST) -> Iterator[tuple[str, Works, str]]:
    """Name, extent and note of each capability in a mode."""
    for capability in among:
        works = capability.normal if mode == "normal" else capability.emergency
        yield capability.name, works, capability.note
