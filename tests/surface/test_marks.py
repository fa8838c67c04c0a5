"""Words of patients and clinicians, followed through a whole day: found where they belong, sealed,
and nowhere else: no log, no metric, no error, no row, no file."""

from __future__ import annotations

import base64
import logging
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from models.generation import Delta, Done, Finish, Usage
from tests.surface.world import FHIR, World, belongings, created, post

NAME, PROMPT, ANSWER, FILE, REASON, WRONG, HEAD = (
    f"MARCA{word}Q7Z"
    for word in ("NOME", "PERGUNTA", "RESPOSTA", "ARQUIVO", "MOTIVO", "ERRO", "CAB")
)
MARKS = (NAME, PROMPT, ANSWER, FILE, REASON, WRONG, HEAD)
# The name of a parameter that is not known is told back, so that it can be put right; a value never.
PARAMETER = "MARCAPARAMETROQ7Z"


class Everything(logging.Handler):
    """Every record of every logger of this process, arguments and tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name} {self.format(record)} {record.args!r}")


@pytest.fixture(scope="module")
def heard() -> Iterator[Everything]:
    """What the process logs at any level while the module runs."""
    handler, root = Everything(), logging.getLogger()
    loggers = [logging.getLogger(name) for name in ("medrec", "uvicorn", "psycopg", "psycopg.pool")]
    before = [(logger, logger.level) for logger in (root, *loggers)]
    # The tests' own client would say what it asks for; it is not part of the platform.
    quiet = [logging.getLogger(name) for name in ("httpx", "httpcore")]
    for logger, _ in before:
        logger.setLevel(logging.DEBUG)
    for logger in quiet:
        logger.setLevel(logging.WARNING)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    for logger, level in before:
        logger.setLevel(level)


@pytest.fixture(scope="module")
def day(world: World, heard: Everything) -> list[httpx.Response]:
    """The journey: every refusal of it is returned."""
    found = [
        *_records(world),
        *_chats(world),
        *_mistakes(world),
        *_own_surfaces(world),
    ]
    return [answer for answer in found if answer.status_code >= 400]


def _records(world: World) -> Iterator[httpx.Response]:
    """A chart whose every free text is marked; searches, updates, history, deletion."""
    patient: dict[str, Any] = {
        "resourceType": "Patient",
        "name": [{"family": NAME, "given": [f"Ana {NAME}"], "text": NAME}],
        "identifier": [{"system": "urn:test:mrn", "value": NAME}],
        "telecom": [{"system": "email", "value": f"{NAME}@exemplo.invalid"}],
        "address": [{"line": [f"Rua {NAME}"], "city": NAME, "text": NAME}],
        "contact": [{"name": {"family": NAME}}],
        "birthDate": "1961-05-06",
        "generalPractitioner": [{"reference": f"Practitioner/{world.practitioner}"}],
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{NAME}</div>',
        },
    }
    id = created(post(world.demo, patient))
    world.marked = id
    subject = {"reference": f"Patient/{id}"}
    for resource in belongings(subject, NAME):
        yield post(world.demo, resource)
    for content, kind in ((FILE.encode(), "text/plain"), (b"%PDF" + FILE.encode() * 5_000, "a/b")):
        headers = {"content-type": kind, "x-security-context": f"Patient/{id}"}
        at = created(world.demo.post("/fhir/Binary", content=content, headers=headers))
        assert FILE.encode() in world.demo.get(f"/fhir/Binary/{at}").content
    physician = world.user("physician")
    for query in ({"name": NAME}, {"identifier": f"urn:test:mrn|{NAME}"}, {"family": NAME.lower()}):
        yield physician.get("/fhir/Patient", params=query)
        found = physician.post("/fhir/Patient/_search", data=query)
        assert found.json()["entry"], query
    changed = {**patient, "id": id, "birthDate": "1961-05-07"}
    headers = {"content-type": FHIR, "if-match": 'W/"1"'}
    yield physician.put(f"/fhir/Patient/{id}", json=changed, headers=headers)
    yield physician.put(f"/fhir/Patient/{id}", json=changed, headers=headers)  # 412
    assert NAME in physician.get(f"/fhir/Patient/{id}/$everything").text
    assert NAME in physician.get(f"/fhir/Patient/{id}/_history").text


def _chats(world: World) -> Iterator[httpx.Response]:
    """Chats about the patient and without one, whole, streamed, and refused."""
    physician, patient = world.user("physician"), f"Patient/{world.marked}"
    done = Done(Usage(prompt_tokens=7, cached_tokens=4, completion_tokens=5))
    world.language.script = ((Delta(0, ANSWER, 5),), (Finish(0, "stop"), done))
    for metadata in ({}, {"metadata": {"patient": patient}}):
        for stream in (False, True):
            ask = {
                "model": "gemma3-demo",
                "messages": [{"role": "user", "content": PROMPT}],
                "stream": stream,
                **metadata,
            }
            answer = physician.post("/v1/chat/completions", json=ask)
            assert answer.status_code == 200, answer.text
            assert ANSWER in answer.text
    for change in (
        {"model": WRONG},
        {"messages": [{"role": WRONG, "content": PROMPT}]},
        {"messages": [{"role": "user", "content": [{"type": WRONG, "text": PROMPT}]}]},
        {"metadata": {"patient": WRONG}},
        {"metadata": {WRONG: WRONG}},
        {"unheard_of": WRONG},
        {"stop": [WRONG] * 99},
    ):
        yield physician.post("/v1/chat/completions", json={**ask, **change})


def _mistakes(world: World) -> Iterator[httpx.Response]:
    """Wrong values in every place that a message could be tempted to quote."""
    client = world.demo
    for parameter in (
        "birthdate",
        "_count",
        "_sort",
        "_lastUpdated",
        PARAMETER,
        f"name:{PARAMETER}",
    ):
        yield client.get("/fhir/Patient", params={parameter: WRONG})
    for kind, resource in (
        ("Patient", {"resourceType": "Patient", "birthDate": WRONG}),
        ("Patient", {"resourceType": "Patient", "gender": WRONG}),
        ("Patient", {"resourceType": "Patient", WRONG: WRONG}),
        ("Patient", {"resourceType": WRONG}),
        ("Patient", {"resourceType": "Patient", "name": WRONG}),
        ("Observation", {"resourceType": "Observation", "status": WRONG, "note": [{"text": NAME}]}),
    ):
        yield client.post(f"/fhir/{kind}", json=resource, headers={"content-type": FHIR})
    systems = {str(k): v for k, v in world.args.identifier_systems.items()}
    for system in systems.values():
        bad = {"resourceType": "Patient", "identifier": [{"system": system, "value": WRONG}]}
        yield post(client, bad)
    yield client.post("/fhir/Patient", content=f"{{{WRONG}", headers={"content-type": FHIR})
    yield client.post("/fhir/Patient", content=b"{}", headers={"content-type": f"text/{WRONG}"})
    for path in (f"/fhir/Patient/{WRONG}", f"/fhir/{WRONG}", f"/{WRONG}", f"/v1/models/{WRONG}"):
        yield client.get(path)
        yield client.delete(path)
    for name in ("if-match", "if-none-exist", "prefer", "accept", "idempotency-key", "range"):
        yield client.get("/fhir/Patient", headers={name: f"{HEAD} {HEAD}"})
        yield client.put("/fhir/Patient/x", json={}, headers={name: f"{HEAD} {HEAD}"})
    yield httpx.get(f"{world.base_url}/fhir/Patient", headers={"authorization": f"Bearer {HEAD}"})
    yield httpx.get(f"{world.base_url}/fhir/Patient", headers={"authorization": f"Basic {HEAD}"})
    for form in (
        {"grant_type": "password", "username": WRONG, "password": WRONG},
        {"grant_type": WRONG},
        {"grant_type": "password", "username": "physician", "password": WRONG, "scope": WRONG},
    ):
        yield world.bare.post("/v1/auth/token", data=form)
    yield world.bare.post("/v1/auth/refresh", data={"refresh_token": WRONG})


def _own_surfaces(world: World) -> Iterator[httpx.Response]:
    """Break-glass with a marked reason, decisions and switches with marked mistakes."""
    physician = world.user("physician")
    stranger = created(post(world.demo, {"resourceType": "Patient", "name": [{"family": NAME}]}))
    opened = physician.post(
        "/v1/break-glass", json={"patient": f"Patient/{stranger}", "reason": f"Urgência {REASON}"}
    )
    assert opened.status_code == 201, opened.text
    alert = {
        "severity": "critical",
        "kind": "fall",
        "to": {"care": True},
        "patient": f"Patient/{world.marked}",
        "text": f"Queda {REASON}",
    }
    raised = physician.post("/v1/alerts", json=alert)
    assert raised.status_code == 201, raised.text
    for change in ({"kind": WRONG}, {"to": {"role": WRONG}}, {"patient": WRONG}, {WRONG: WRONG}):
        yield physician.post("/v1/alerts", json={**alert, **change})
    yield physician.get(f"/v1/alerts/{WRONG}")
    yield physician.get("/v1/alerts/stream", params={"after": WRONG})
    yield physician.post("/v1/break-glass", json={"patient": WRONG, "reason": REASON})
    yield physician.post("/v1/ai/decisions", json={"interaction": WRONG, "decision": WRONG})
    yield world.user("admin").put(f"/v1/ai/switches/{WRONG}", json={"enabled": WRONG})


def test_the_journey_met_many_refusals_and_none_of_them_quotes_what_was_sent(
    day: list[httpx.Response],
) -> None:
    assert len(day) > 45
    for answer in day:
        assert answer.status_code < 500, answer.text
        said = answer.text + str(sorted(answer.headers.items()))
        marks = [mark for mark in MARKS if mark in said]
        assert not marks, (answer.request.method, answer.request.url, said)


def test_no_log_line_of_any_level_holds_a_mark(
    day: list[httpx.Response], heard: Everything, capfd: pytest.CaptureFixture[str]
) -> None:
    assert any(line.startswith("medrec.access") for line in heard.lines)
    for line in heard.lines:
        assert not [mark for mark in (*MARKS, PARAMETER) if mark in line], line


def test_the_process_prints_no_mark(
    world: World, day: list[httpx.Response], capfd: pytest.CaptureFixture[str]
) -> None:
    """Once more on the way out: what a replica would write to its standard streams."""
    log = logging.getLogger("medrec")
    handler = logging.StreamHandler(sys.__stderr__)
    log.addHandler(handler)
    try:
        world.demo.get(f"/fhir/Patient/{WRONG}", headers={"if-none-match": HEAD})
        world.demo.get("/fhir/Patient", params={"name": NAME})
    finally:
        log.removeHandler(handler)
    printed = "".join(capfd.readouterr())
    assert not [mark for mark in MARKS if mark in printed], printed


def _spellings(mark: str) -> list[bytes]:
    """The mark as itself, in small letters, in hexadecimal and in base64 at every offset."""
    plain = mark.encode()
    spelled = [plain, plain.lower(), plain.hex().encode(), plain.lower().hex().encode()]
    for shift in range(3):
        whole = base64.b64encode(b"\0" * shift + plain)
        spelled.append(whole[-(-shift * 4 // 3) + 1 : -4])
    return spelled


def test_no_row_of_any_table_holds_a_mark_in_the_open(
    world: World, day: list[httpx.Response]
) -> None:
    with psycopg.connect(world.places.owner_dsn) as connection:
        tables = connection.execute(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
            " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert len(tables) > 12
        found = []
        for (table,) in tables:
            rows = connection.execute(f"SELECT t::text FROM {table} t".encode()).fetchall()
            text = "\n".join(row[0] for row in rows).encode()
            found += [(table, mark) for mark in MARKS for s in _spellings(mark) if s in text]
    assert not found


def test_no_file_of_the_home_holds_a_mark(world: World, day: list[httpx.Response]) -> None:
    files = [path for path in Path(world.home.path).rglob("*") if path.is_file()]
    assert any(path.is_relative_to(world.places.blobs) for path in files)
    found = []
    for path in files:
        content = path.read_bytes()
        found += [(path.name, mark) for mark in MARKS for s in _spellings(mark) if s in content]
    assert not found


def test_the_audit_names_the_patient_by_id_and_nothing_else(
    world: World, day: list[httpx.Response]
) -> None:
    marked = world.marked
    answer = world.user("auditor").get(
        "/fhir/AuditEvent", params={"patient": marked, "_count": "100"}
    )
    assert answer.status_code == 200, answer.text
    entries = answer.json()["entry"]
    assert len(entries) > 10
    assert not [mark for mark in MARKS if mark in str(entries)]


def test_the_words_are_still_there_for_those_who_care(
    world: World, day: list[httpx.Response]
) -> None:
    physician = world.user("physician")
    shown = physician.get(f"/fhir/Patient/{world.marked}").json()
    assert shown["name"][0]["family"] == NAME
    assert shown["birthDate"] == "1961-05-07"
    assert uuid.UUID(shown["id"])
