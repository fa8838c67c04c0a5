"""Proves the table of capabilities: what each mode and state permits, and in which words it refuses."""

from __future__ import annotations

import pytest

from deployments.edge import modes
from deployments.edge.modes import CAPABILITIES, READABLE, ChatAsked, decide, refuse_chat

ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
PERMITTED = [
    ("POST", "/v1/auth/token", "sign-in"),
    ("POST", "/v1/auth/refresh", "sign-in"),
    ("GET", "/v1/auth/me", "sign-in"),
    ("POST", "/v1/chat/completions", "chat"),
    ("GET", "/v1/models/gemma3-demo", "chat"),
    ("POST", "/v1/audio/transcriptions", "transcription"),
    *(("GET", f"/fhir/{type}", "emergency-records") for type in sorted(READABLE)),
    *(("GET", f"/fhir/{type}/{ID}", "emergency-records") for type in sorted(READABLE)),
    ("POST", "/fhir/Observation/_search", "emergency-records"),
    ("POST", "/v1/emergency/notes", "emergency-notes"),
    ("GET", "/v1/emergency/review", "emergency-review"),
    ("GET", "/v1/alerts", "alerts"),
    ("POST", f"/v1/alerts/{ID}/acknowledge", "alerts"),
]
REFUSED = [
    ("POST", "/fhir/Patient", "records"),
    ("PUT", f"/fhir/Patient/{ID}", "records"),
    ("DELETE", f"/fhir/Observation/{ID}", "records"),
    ("PATCH", f"/fhir/Observation/{ID}", "records"),
    ("GET", f"/fhir/Patient/{ID}/$everything", "records"),
    ("GET", f"/fhir/Patient/{ID}/_history", "records"),
    ("GET", "/fhir/Patient/_history", "records"),
    ("GET", "/fhir/Encounter", "records"),
    ("POST", "/fhir/Consent/_search", "records"),
    ("POST", "/fhir", "records"),
    ("POST", "/fhir/", "records"),
    ("GET", f"/fhir/Binary/{ID}", "documents"),
    ("GET", "/fhir/AuditEvent", "audit"),
    ("POST", "/v1/auth/passkeys/sign-in", "accounts"),
    ("POST", "/v1/auth/password", "accounts"),
    ("POST", "/v1/break-glass", "break-glass"),
    ("PUT", "/v1/ai/switches/site", "ai-duties"),
    ("POST", "/v1/images/analyses", "images"),
    ("POST", "/v1/audio/speech", "speech"),
    ("GET", "/v1/realtime", "realtime"),
    ("POST", "/v1/embeddings", "embeddings"),
    ("GET", "/v1/reports/monthly", "reports"),
    ("GET", "/v1/nothing-of-this-name", "unlisted"),
    ("GET", "/", "unlisted"),
]
OPEN = [
    *(("GET", path) for path in ("/health/live", "/health/ready", "/metrics", "/v1/mode")),
    *(("GET", path) for path in ("/openapi.json", "/fhir/metadata", "/internal/condition")),
    ("POST", "/internal/emergency/activate"),
]


@pytest.mark.parametrize(("method", "path", "name"), PERMITTED)
def test_an_active_emergency_permits_what_the_plan_says(method: str, path: str, name: str) -> None:
    found = decide("emergency", "active", method, path)
    assert (found.capability.name, found.permitted) == (name, True)


@pytest.mark.parametrize(("method", "path", "name"), REFUSED)
def test_everything_else_is_refused_by_name(method: str, path: str, name: str) -> None:
    found = decide("emergency", "active", method, path)
    assert (found.capability.name, found.permitted) == (name, False)
    assert found.code == "not_in_emergency"
    assert found.reason.startswith(f"In an emergency this is not available: {name} (")


@pytest.mark.parametrize(("method", "path"), OPEN)
@pytest.mark.parametrize("state", ["standby", "active", "expired"])
def test_probes_and_hosts_are_answered_in_every_state(
    method: str, path: str, state: modes.State
) -> None:
    assert decide("emergency", state, method, path).permitted


@pytest.mark.parametrize(("method", "path", "name"), [*PERMITTED, *REFUSED])
def test_a_cell_that_nobody_activated_serves_nobody(method: str, path: str, name: str) -> None:
    waiting, over = (decide("emergency", s, method, path) for s in ("standby", "expired"))
    assert (waiting.permitted, waiting.code) == (False, "emergency_not_active")
    assert waiting.reason == "The emergency service is not active: the site itself serves."
    assert over.reason == "The emergency service is over: the site itself serves."


@pytest.mark.parametrize(("method", "path", "name"), [*PERMITTED, *REFUSED])
def test_on_site_everything_but_the_journal_works(method: str, path: str, name: str) -> None:
    found = decide("normal", "normal", method, path)
    assert found.permitted == (name != "emergency-notes")
    if not found.permitted:
        assert found.code == "only_in_emergency"


def test_the_table_says_of_everything_how_far_it_goes() -> None:
    told = {name: works for name, works, _ in modes.shown("emergency")}
    assert told == {name: each.emergency for name, each in CAPABILITIES.items()}
    assert {name for name, works in told.items() if works == "limited"} == {
        *("sign-in", "chat", "transcription", "emergency-records", "alerts")
    }
    assert {rule.capability for rule in modes.RULES} <= set(CAPABILITIES)


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (ChatAsked(None, 1, 10, frozenset({"text"})), None),
        (ChatAsked(256, 1, 8000, frozenset()), None),
        (ChatAsked(257, 1, 10, frozenset()), "max_tokens"),
        (ChatAsked(None, 2, 10, frozenset()), "n"),
        (ChatAsked(None, 1, 8001, frozenset()), "messages"),
        (ChatAsked(None, 1, 10, frozenset({"text", "image_url"})), "messages"),
    ],
)
def test_a_basic_chat_is_short_and_text_alone(asked: ChatAsked, param: str | None) -> None:
    refusal = refuse_chat(asked, max_tokens=256, max_prompt_chars=8000)
    assert (refusal.param if refusal else None) == param
