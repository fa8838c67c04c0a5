"""Export and erasure at a person's request, on a real record."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from configs.args import RecordsArgs
from deployments.data.alerts.alert import To
from deployments.data.alerts.alerts import Alerts
from deployments.data.audit.chain import Audit
from deployments.data.blobs.store import Blobs
from deployments.data.database import Database
from deployments.data.errors import Conflict, NotFound
from deployments.data.interactions.decisions import Decisions
from deployments.data.interactions.ledger import Ledger
from deployments.data.interactions.subject import CATEGORIES, Line, Subject, kept_until
from deployments.data.interactions.subject_erasure import Erasure
from deployments.data.interactions.subject_export import SubjectExport
from deployments.data.places import Places
from deployments.data.seal.sealer import Sealer
from tests.deployments.data.interactions.conftest import MESSAGES, again, answer, question
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import House, Owner

ARGS = RecordsArgs(disk_reserve_gb=0.0)
LATER = datetime.now(UTC) + timedelta(days=366 * 21)


@pytest.fixture
def places(dsns: tuple[str, str], tmp_path: Path, sealer: Sealer) -> Places:
    for name in ("blobs", "operator-journal"):
        (tmp_path / name).mkdir(mode=0o700)
    return Places(
        dsn=dsns[0],
        owner_dsn=dsns[1],
        secrets=tmp_path / "secrets",
        blobs=tmp_path / "blobs",
        journal=tmp_path / "operator-journal",
    )


@pytest.fixture
async def patient(
    house: House,
    ledger: Ledger,
    decisions: Decisions,
    sealer: Sealer,
    places: Places,
    database: Database,
    audit: Audit,
) -> str:
    """A patient with an observation, a document, an alert, and a chat that was accepted."""
    who = house.physician
    patient = await house.patient()
    await house.records.create(again(who), "Observation", people.observation(patient))
    asked = question(patient)
    await ledger.begin(again(who), asked)
    await ledger.end(again(who), asked, answer())
    await decisions.decide(again(who), asked.id, "accepted")
    await keep_document(house, sealer, places, patient)
    await Alerts(database, sealer, audit, ARGS).raise_alert(
        again(who), severity="high", code="fall", to=To("care"), patient=patient, text=people.MARK
    )
    return patient


async def keep_document(house: House, sealer: Sealer, places: Places, patient: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"a scanned letter"

    blobs = Blobs(sealer, places.blobs, ARGS)
    draft = await blobs.put(pieces(), announced=None)
    ids: dict[str, Any] = {
        "resourceType": "Binary",
        "contentType": "text/plain",
        "securityContext": {"reference": f"Patient/{patient}"},
    }
    written = await house.records.create(again(house.physician), "Binary", ids)
    async with house.records._access.opened(  # the route's own way is serve_app's
        again(house.physician), write=True
    ) as connection:
        await blobs.keep(
            connection,
            draft,
            organization=people.ORGANIZATION,
            resource=("Binary", written.stored.id, 1),
            patient=patient,
            content_type="text/plain",
        )
    await blobs.close()


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.category: line for line in lines}


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


async def test_an_export_holds_everything_and_is_on_record(
    places: Places, patient: str, owner: Owner, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    manifest = await SubjectExport(places, ARGS).run(Subject(patient, "hospital"), out)
    assert oct(out.stat().st_mode & 0o777) == "0o700"
    kinds = [line["type"] for line in lines_of(out / "records.ndjson")]
    assert {"Patient", "Observation", "Binary"} <= set(kinds)
    assert people.MARK in (out / "records.ndjson").read_text(encoding="utf-8")
    (interaction,) = lines_of(out / "interactions.ndjson")
    assert [made["decision"] for made in interaction["decisions"]] == ["accepted"]
    asked = [line for line in lines_of(out / "texts.ndjson") if line["part"] == "input"]
    assert [line["content"] for line in asked] == [MESSAGES]
    assert {line["resourceType"] for line in lines_of(out / "audit.ndjson")} == {"AuditEvent"}
    (alert,) = lines_of(out / "alerts.ndjson")
    assert (alert["code"], alert["text"]) == ("fall", people.MARK)
    (document,) = (out / "documents").iterdir()
    assert document.read_bytes() == b"a scanned letter"
    assert manifest["counts"]["documents"] == 1
    assert set(manifest["sha256"]) >= {"records.ndjson", "audit.ndjson"}
    begun, *_, ended = [e for e in owner.entries("export") if e["actor_kind"] == "operator"]
    assert (begun["details"]["step"], ended["details"]["step"]) == ("begin", "end")
    with pytest.raises(Conflict):
        await SubjectExport(places, ARGS).run(Subject(patient, "hospital"), out)


@pytest.mark.parametrize("organization", ["hospital", people.OTHER])
async def test_nobody_is_exported_who_is_not_this_hospitals(
    places: Places, patient: str, tmp_path: Path, organization: str
) -> None:
    unknown = Subject("nobody" if organization == "hospital" else patient, organization)
    with pytest.raises(NotFound):
        await SubjectExport(places, ARGS).run(unknown, tmp_path / "out")
    assert not (tmp_path / "out").exists()


async def test_erasure_takes_the_texts_and_says_what_the_law_keeps_and_until_when(
    places: Places, patient: str, owner: Owner
) -> None:
    lines = by_name(await Erasure(places).run(Subject(patient, "hospital")))
    assert set(lines) == {category.name for category in CATEGORIES}
    assert (lines["chat"].held, lines["chat"].erased, lines["chat"].kept) == (2, 2, 0)
    assert lines["chat"].until is None
    assert lines["resources"].erased == 0
    assert lines["resources"].kept == 3
    assert "13.787" in lines["resources"].law
    assert lines["resources"].until is not None
    assert lines["resources"].until.year == datetime.now(UTC).year + 20
    assert lines["audit"].kept > 0
    assert lines["audit"].until is None
    assert owner.rows("SELECT count(*) FROM interactions.short_lived") == [(0,)]
    (entry,) = owner.entries("erase")
    assert entry["actor_kind"] == "operator"
    assert entry["details"]["erased"] == {"chat": 2}
    again_ = by_name(await Erasure(places).run(Subject(patient, "hospital")))
    assert again_["chat"].held == 0


async def test_another_hospitals_operator_erases_nothing_of_it(
    places: Places, patient: str, owner: Owner
) -> None:
    lines = await Erasure(places).run(Subject(patient, people.OTHER))
    assert not [line for line in lines if line.held]
    assert owner.rows("SELECT count(*) FROM interactions.short_lived") == [(2,)]


async def test_a_record_within_its_20_years_is_not_deleted(
    places: Places, patient: str, owner: Owner
) -> None:
    with pytest.raises(Conflict, match="keeps this record until"):
        await Erasure(places).run(Subject(patient, "hospital"), records_too=True)
    assert owner.rows("SELECT count(*) FROM records.resource WHERE patient = %s", patient) == [(3,)]


async def test_after_its_20_years_a_record_goes_whole_and_the_proof_stays(
    places: Places, patient: str, owner: Owner, house: House, database: Database
) -> None:
    other = await house.patient()
    lines = by_name(
        await Erasure(places).run(Subject(patient, "hospital"), records_too=True, now=LATER)
    )
    assert {name for name, line in lines.items() if line.kept} == {"audit"}
    assert owner.rows("SELECT count(*) FROM alerts.event") == [(0,)]
    for table in (
        *("records.resource", "records.history", "records.care", "records.blob"),
        "alerts.alert",
    ):
        left = owner.rows(f"SELECT count(*) FROM {table} WHERE patient = %s", patient)
        assert left == [(0,)], table
    assert not [path for path in places.blobs.rglob("*") if path.is_file()]
    assert owner.rows("SELECT count(*) FROM records.resource WHERE id = %s", other) == [(1,)]
    assert [entry["details"].get("records_too") for entry in owner.entries("erase")] == [True] * 2
    with pytest.raises(NotFound):
        await house.records.read(again(house.machine), "Patient", patient)


async def test_only_records_whose_20_years_are_over_are_due(
    places: Places, patient: str, owner: Owner
) -> None:
    assert await Erasure(places).due("hospital") == []
    assert await Erasure(places).due("hospital", LATER) == [patient]
    assert await Erasure(places).due(people.OTHER, LATER) == []
    assert owner.rows("SELECT count(*) FROM records.resource WHERE id = %s", patient) == [(1,)]


def test_twenty_years_from_a_leap_day_end_on_a_day_that_exists() -> None:
    assert kept_until(datetime(2028, 2, 29, tzinfo=UTC)) == datetime(2048, 2, 29, tzinfo=UTC)
    assert kept_until(datetime(2080, 2, 29, tzinfo=UTC)) == datetime(2100, 3, 1, tzinfo=UTC)
