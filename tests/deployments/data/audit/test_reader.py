"""Who may read the audit reads its own organisation's, and is on record before it leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import orjson
import psycopg
import pytest
from fhir.resources.R4B.auditevent import AuditEvent

from deployments.data.audit.chain import Audit
from deployments.data.audit.reader import AuditReader, AuditSearch
from deployments.data.database import Database
from deployments.data.errors import DataError, Forbidden, Invalid, NotFound
from tests.deployments.data.audit.acts import caller, chain, entry, soon


@pytest.fixture
async def reader(audit: Audit, database: Database) -> AuditReader:
    """A reader of ten entries, every other one of another organisation."""
    for number in range(10):
        await audit.record(
            entry(
                number,
                organization="hospital" if number % 2 == 0 else "other",
                patient=f"p{number % 4}",
                actor=f"a{number}",
                action="read" if number < 6 else "update",
                outcome="success" if number else "denied",
            ),
            deadline=soon(),
        )
    return AuditReader(database, audit)


def numbers(events: object) -> list[int]:
    found = []
    for event in events:  # type: ignore[attr-defined]
        AuditEvent.model_validate(event)
        details = event["entity"][0].get("detail", [])
        found += [int(part["valueString"]) for part in details if part["type"] == "number"]
    return found


async def test_a_page_holds_the_organisation_s_entries_newest_first(reader: AuditReader) -> None:
    page = await reader.search(caller(), AuditSearch())
    assert (numbers(page.events), page.next_cursor) == ([8, 6, 4, 2, 0], None)
    page = await reader.search(caller(organization="other"), AuditSearch(patient="p1"))
    assert numbers(page.events) == [9, 5, 1]


async def test_pages_follow_each_other(reader: AuditReader) -> None:
    found, cursor = [], None
    for _ in range(3):
        wanted = AuditSearch(patient="Patient/p0")
        page = await reader.search(caller(), wanted, count=1, cursor=cursor)
        found += numbers(page.events)
        cursor = page.next_cursor
    assert (found, cursor) == ([8, 4, 0], None)


NOW = datetime.now(UTC)


async def test_conditions_hold_together(reader: AuditReader) -> None:
    for wanted, expected in (
        (AuditSearch(agent="a4"), [4]),
        (AuditSearch(action="update"), [8, 6]),
        (AuditSearch(action="R"), [4, 2, 0]),
        (AuditSearch(action="D"), []),
        (AuditSearch(outcome="4"), [0]),
        (AuditSearch(outcome="denied"), [0]),
        (AuditSearch(outcome="12"), []),
        (AuditSearch(since=NOW + timedelta(days=1)), []),
        (AuditSearch(until=NOW - timedelta(days=1)), []),
        (AuditSearch(since=NOW - timedelta(days=1), patient="p2"), [6, 2]),
        (AuditSearch(patient="' OR true --"), []),
    ):
        page = await reader.search(caller(), wanted)
        assert numbers(page.events) == expected, wanted


@pytest.mark.parametrize(
    "wanted",
    [
        AuditSearch(action="x"),
        AuditSearch(outcome="x"),
        AuditSearch(patient="a\x00b"),
        AuditSearch(agent="\ud800"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(wanted: AuditSearch) -> None:
    with pytest.raises(Invalid):
        wanted.conditions()


async def test_a_cursor_of_somebody_s_own_is_refused(reader: AuditReader) -> None:
    for cursor in ["", "x", "-1", "1; DROP", "9" * 30, "٣"]:
        with pytest.raises(Invalid):
            await reader.search(caller(), AuditSearch(), cursor=cursor)


async def test_reading_is_on_record_before_it_leaves(
    reader: AuditReader, dsns: tuple[str, str]
) -> None:
    await reader.search(caller(), AuditSearch(patient="p0", outcome="0", action="read"))
    with psycopg.connect(dsns[1]) as owner:
        row = owner.execute(
            "SELECT action, outcome, patient, actor, body FROM audit.entry WHERE seq = 11"
        ).fetchone()
    assert row is not None
    assert row[:4] == ("audit-read", "success", "p0", "u1")
    details = orjson.loads(row[4])["details"]
    assert details == {"found": 1, "search": {"action": "read", "outcome": "0"}}


async def test_nothing_leaves_while_the_chain_cannot_be_written(
    reader: AuditReader, dsns: tuple[str, str]
) -> None:
    impatient = caller()
    object.__setattr__(impatient, "deadline", soon(0.5))
    with psycopg.connect(dsns[1]) as other:
        other.execute("SELECT seq FROM audit.head FOR UPDATE")
        with pytest.raises(DataError):
            await reader.search(impatient, AuditSearch())


async def test_one_event_is_read_by_its_id_within_the_organisation(
    reader: AuditReader, dsns: tuple[str, str]
) -> None:
    ids = [id for _, id in chain(dsns[1])]
    event = await reader.read(caller(), ids[0])
    assert (event["id"], event["outcome"]) == (ids[0], "4")
    for id in (ids[1], "nothing", ids[0].upper(), ids[0].replace("-", "")):
        with pytest.raises(NotFound):
            await reader.read(caller(), id)
    assert len(chain(dsns[1])) == 15, "every look is on record, also the one that found nothing"


async def test_others_are_refused(reader: AuditReader) -> None:
    for who in (
        caller("physician", scopes="user/*.cruds user/AuditEvent.rs"),
        caller("auditor", scopes="user/Patient.rs"),
        caller("auditor", scopes="user/*.cruds"),
        caller("service", scopes="system/AuditEvent.rs"),
    ):
        with pytest.raises(Forbidden):
            await reader.search(who, AuditSearch())
        with pytest.raises(Forbidden):
            await reader.read(who, "x")
        with pytest.raises(Forbidden):
            await anext(reader.entries(who, AuditSearch()))


async def test_a_stream_of_everything_is_in_order_and_on_record_first(
    reader: AuditReader, dsns: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.data.audit.reader._STREAM_COUNT", 2)
    stream = reader.entries(caller(), AuditSearch(until=NOW + timedelta(days=1)))
    first = await anext(stream)
    assert len(chain(dsns[1])) == 11
    assert numbers([first, *[event async for event in stream]]) == [0, 2, 4, 6, 8]


async def test_an_act_on_several_patients_is_found_by_each_of_them(
    audit: Audit, database: Database
) -> None:
    patients = {"patients": ["p1", "p2"], "number": 5}
    one = entry(patient=None, resource="Patient", action="search", details=patients)
    await audit.record(one, deadline=soon())
    await audit.record(entry(6, patient="p2"), deadline=soon())
    reader = AuditReader(database, audit)
    for patient, expected in (("p1", [5]), ("p2", [6, 5]), ("p3", [])):
        page = await reader.search(caller(), AuditSearch(patient=patient))
        assert numbers(page.events) == expected
    page = await reader.search(caller(), AuditSearch(patient="p1", action="search"))
    people = [e["what"]["reference"] for e in page.events[0]["entity"] if e["type"]["code"] == "1"]
    assert people == ["Patient/p1", "Patient/p2"]
