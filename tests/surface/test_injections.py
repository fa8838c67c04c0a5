"""SQL, JSON and header injections in everything that a caller can fill in: data, never code."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import psycopg
import pytest

from deployments.data.records.parameters import PARAMETERS
from tests.surface.conftest import Patients
from tests.surface.world import World

ATTACKS = (
    "' OR '1'='1",
    "'; DROP TABLE records.resource; --",
    "\\'; SELECT pg_sleep(20); --",
    "') UNION SELECT content FROM records.resource --",
    "$$;SELECT 1;$$",
    "%s%s%s%(x)s%%",
    "{}[]\"'\\u0000",
    '{"$ne": null}',
    '"}, "patient": {"x": "',
    "*",
    "%",
    "_",
    "a,b|c|d$e\\,f",
    "|",
    "||",
    "-1",
    "1e309",
    "9" * 400,
    "../../../../etc/passwd",
    "${jndi:ldap://127.0.0.1:9/x}",
    "<script>alert(1)</script>",
    "\u202e\u0000\ufeff",
    "\U0001f600" * 40,
    "ge2024-13-45",
    "2024-02-30T25:61:61Z",
    "0000-00-00",
    "ne99999",
)
CONTROLS = ("_sort", "_count", "_include", "_cursor")
# Parsed by its kind, which a table gives: the first of every kind in `make test`, the others are slow.
KINDS = {
    (kind, name): parameter.kind
    for kind, parameters in PARAMETERS.items()
    for name, parameter in parameters.items()
} | {(kind, name): name for kind in PARAMETERS for name in CONTROLS}
FIRST = {how: target for target, how in reversed(KINDS.items())}.values()
TARGETS = [
    pytest.param(*target, marks=() if target in FIRST else pytest.mark.slow)
    for target in sorted(KINDS)
]


@pytest.fixture(scope="module")
def rows(world: World, patients: Patients) -> int:
    """How many resources there are before the attacks."""
    return _count(world)


def _count(world: World) -> int:
    with psycopg.connect(world.places.owner_dsn) as connection:
        found = connection.execute("SELECT count(*) FROM records.resource").fetchone()
    assert found is not None
    return int(found[0])


def assert_harmless(answer: httpx.Response, patients: Patients) -> None:
    assert answer.status_code in (200, 400, 403, 404, 405, 414, 422, 431), answer.text
    for word in ("psycopg", "syntax error", "Traceback", "SELECT ", "relation ", "pg_"):
        if answer.status_code != 200:
            assert word not in answer.text
    # Whatever was asked for, it was not everything: strangers stay hidden.
    if answer.status_code == 200:
        marks = (patients.stranger.mark, patients.foreign.mark)
        entries = str(answer.json().get("entry", ""))
        assert not any(mark in entries for mark in marks)


@pytest.mark.parametrize(("kind", "name"), TARGETS)
def test_every_search_parameter_takes_attacks_for_values(
    world: World, physician: httpx.Client, patients: Patients, rows: int, kind: str, name: str
) -> None:
    for attack in ATTACKS:
        if "\x00" not in attack:
            answer = physician.get(f"/fhir/{kind}", params={name: attack})
            assert answer.elapsed.total_seconds() < 10
            assert_harmless(answer, patients)
    # Without encoding by the client's library: NUL, bad escapes, invalid UTF-8, a lone surrogate.
    for raw in ("%00", "a%00b", "%", "%zz", "%ff%fe", "%ed%a0%80", "%c0%80", "a=b=c", "&&&", "="):
        answer = physician.get(httpx.URL(f"{world.base_url}/fhir/{kind}?{name}={raw}"))
        assert_harmless(answer, patients)


def test_names_of_parameters_and_modifiers_are_refused_not_run(
    world: World, patients: Patients
) -> None:
    for attack in ATTACKS:
        for name in (attack, f"name:{attack}", f"_{attack}", f"patient.{attack}"):
            if "\x00" in name:
                continue
            answer = world.demo.get("/fhir/Patient", params={name: "x"})
            assert answer.status_code in (400, 431), (name, answer.text)


def test_paths_take_attacks_for_ids(world: World, patients: Patients) -> None:
    for attack in ATTACKS:
        id = quote(attack, safe="")
        for path in (
            f"/fhir/Patient/{id}",
            f"/fhir/Patient/{id}/_history",
            f"/fhir/Patient/{patients.cared.patient}/_history/{id}",
            f"/fhir/Patient/{id}/$everything",
            f"/fhir/{id}",
            f"/fhir/{id}/x",
            f"/fhir/Binary/{id}",
            f"/fhir/AuditEvent/{id}",
            f"/v1/models/{id}",
            f"/v1/ai/interactions/{id}",
            f"/v1/ai/switches/{id}",
            f"/v1/break-glass/{id}",
        ):
            answer = world.demo.get(path)
            assert answer.status_code in (400, 401, 403, 404, 405, 414), (path, answer.text)


@pytest.mark.parametrize(
    "name",
    [
        *("if-match", "if-none-match", "if-none-exist", "idempotency-key", "prefer", "accept"),
        *("content-type", "x-request-id", "x-forwarded-for", "x-security-context", "user-agent"),
        *("authorization", "if-modified-since", "range", "cookie", "host", "expect", "te"),
    ],
)
def test_headers_take_attacks_for_values(world: World, patients: Patients, name: str) -> None:
    body = b'{"resourceType":"Patient","birthDate":"2000-01-01"}'
    for attack in ATTACKS:
        value = attack.encode("utf-8").replace(b"\x00", b"")
        headers = [(name.encode(), value)]
        if name != "content-type":
            headers.append((b"content-type", b"application/fhir+json"))
        for method, path in (("GET", "/fhir/Patient?_count=1"), ("POST", "/fhir/Patient")):
            try:
                answer = world.demo.request(
                    method, path, headers=headers, content=body if method == "POST" else None
                )
            except httpx.LocalProtocolError:
                continue  # this client does not send such a value; others are tried below
            assert answer.status_code < 500, (name, attack, answer.text)
            assert "syntax error" not in answer.text


@pytest.mark.parametrize("field", ["username", "password", "grant_type", "scope", "refresh_token"])
def test_sign_in_takes_attacks_for_values(world: World, field: str) -> None:
    for attack in ATTACKS:
        form = {"grant_type": "password", "username": "x", "password": "y", field: attack}
        for path in ("/v1/auth/token", "/v1/auth/refresh"):
            answer = world.bare.post(path, data=form)
            assert answer.status_code in (400, 401, 415, 429), answer.text
            assert "access_token" not in answer.text


def test_bodies_of_the_own_surfaces_take_attacks_for_values(
    world: World, patients: Patients
) -> None:
    admin, physician = world.user("admin"), world.user("physician")
    for attack in ATTACKS:
        for client, path, body in (
            (physician, "/v1/ai/decisions", {"interaction": attack, "decision": "accepted"}),
            (physician, "/v1/ai/decisions", {"interaction": "x", "decision": attack}),
            (physician, "/v1/break-glass", {"patient": attack, "reason": "porque sim, agora"}),
            (admin, "/v1/ai/switches", {"capability": attack, "on": attack}),
            (world.demo, "/v1/chat/completions", {"model": attack, "messages": [attack]}),
        ):
            answer = client.post(path, json=body)
            assert 400 <= answer.status_code < 500, (path, attack, answer.text)


def test_everything_is_still_there(world: World, rows: int) -> None:
    assert _count(world) >= rows
