"""Proves notes and the review of an emergency over HTTP, and the commands around them."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from configs.args import RecordsArgs
from deployments.cell.state import HOME_VARIABLE
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from deployments.data.records.store import Records
from deployments.data.seal.sealer import Sealer
from serve_app.cli import emergency_work
from tests.deployments.data.records import people
from tests.serve_app.modes.conftest import PASSWORD, Cloud

URL = "/v1/emergency/notes"


async def patient_of(cloud: Cloud, name: str) -> str:
    """A patient in the care of a user, as the copy would have brought it."""
    database = Database(cloud.places.dsn, connections=2)
    audit = Audit(database, cloud.places.journal)
    await database.open()
    await audit.start()
    try:
        records = Records(database, Sealer.load(cloud.places.secrets), audit, RecordsArgs())
        who = people.caller(practitioner=f"p-{name}")
        return (await records.create(who, "Patient", people.patient())).stored.id
    finally:
        await audit.close()
        await database.close()


async def test_a_note_is_written_once_read_and_reviewed(cloud: Cloud) -> None:
    await cloud.add("ana")
    await cloud.add("eva", "auditor")
    patient = await patient_of(cloud, "ana")
    await cloud.activate()
    headers = await cloud.headers("ana")
    body = {"patient": f"Patient/{patient}", "text": "adrenaline 0.5 mg", "kind": "medication"}
    keyed = headers | {"idempotency-key": "note-1"}
    first = await cloud.client.post(URL, json=body, headers=keyed)
    assert first.status_code == 201, first.text
    again = await cloud.client.post(URL, json=body, headers=keyed)
    assert again.json() == first.json()
    listed = await cloud.client.get(URL, params={"patient": f"Patient/{patient}"}, headers=headers)
    assert listed.json() == {"notes": [first.json()]}
    read = await cloud.client.get(f"/fhir/Patient/{patient}", headers=headers)
    assert read.status_code == 200
    refused = await cloud.client.get("/v1/emergency/review", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
    auditor = await cloud.headers("eva")
    review = (await cloud.client.get("/v1/emergency/review", headers=auditor)).json()
    kinds = [(act["kind"], act["action"]) for act in review["acts"]]
    assert ("note", "emergency-note") in kinds
    assert ("read", "read") in kinds
    assert review["counts"]["note"] == 2
    [read_act] = [act for act in review["acts"] if act["action"] == "read"]
    assert read_act["patients"] == [patient]
    assert "adrenaline" not in str(review)
    # Another auditor act than the newest emergency's: a page that does not exist.
    missing = await cloud.client.get(
        "/v1/emergency/review", params={"activation": str(uuid.uuid4())}, headers=auditor
    )
    assert missing.status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "patient"),
        ({"patient": "Patient/x", "text": ""}, "text"),
        ({"patient": "x", "text": "t"}, "patient"),
        ({"patient": "Patient/x", "text": "t", "kind": "poem"}, "kind"),
        ({"patient": "Patient/x", "text": "t\x00"}, "text"),
    ],
)
async def test_a_note_that_is_none_is_refused_by_its_field(
    cloud: Cloud, body: dict[str, Any], param: str
) -> None:
    await cloud.add("ana")
    await cloud.activate()
    answer = await cloud.client.post(URL, json=body, headers=await cloud.headers("ana"))
    assert (answer.status_code, answer.json()["param"]) == (400, param)


async def test_queries_that_are_none_are_refused(cloud: Cloud) -> None:
    await cloud.add("eva", "auditor")
    await cloud.activate()
    headers = await cloud.headers("eva")
    for path in (
        f"{URL}?patient=x",
        f"{URL}?patient=Patient/x&patient=Patient/x",
        f"{URL}?other=1",
        "/v1/emergency/review?after=-1",
        "/v1/emergency/review?activation=x",
    ):
        answer = await cloud.client.get(path, headers=headers)
        assert answer.status_code in (400, 403), path
        assert answer.headers["content-type"] == "application/problem+json"


def _config(folder: Path, cloud: Cloud, mode: str) -> Path:
    raw = yaml.safe_load((Path(__file__).parents[3] / "configs" / "cloud.yaml").read_text())
    for app in raw["applications"][1:]:
        app["args"]["records"] = {
            "dsn": cloud.args.dsn,
            "owner_dsn": cloud.args.owner_dsn,
            "mode": mode,
        }
    file = folder / f"{mode}.yaml"
    file.write_text(yaml.safe_dump(raw))
    return file


async def test_the_commands_extend_review_export_and_merge(
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import asyncio

    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    there, site = _config(tmp_path, cloud, "emergency"), _config(tmp_path, cloud, "normal")
    await cloud.add("ana")
    patient = await patient_of(cloud, "ana")
    await cloud.activate()
    headers = await cloud.headers("ana")
    body = {"patient": f"Patient/{patient}", "text": "adrenaline"}
    assert (await cloud.client.post(URL, json=body, headers=headers)).status_code == 201
    cloud.owner.rows("UPDATE emergency.activation SET expires_at = now() - interval '1 s'")
    await asyncio.to_thread(emergency_work.extend, there)
    [(still,)] = cloud.owner.rows("SELECT ended_at IS NULL FROM emergency.activation")
    assert still
    await cloud.end()
    await asyncio.to_thread(emergency_work.review, there, None, as_json=False)
    assert "\tnote\temergency-note\tsuccess\t" in capsys.readouterr().out
    out = tmp_path / "emergency.export"
    package, others = await asyncio.to_thread(emergency_work.export, there, None, out)
    assert others == []
    assert out.stat().st_mode & 0o777 == 0o600
    assert len(package.notes) == 1
    assert b"adrenaline" not in out.read_bytes()
    assert await asyncio.to_thread(emergency_work.merge_file, site, out) == 0
    assert "1 notes merged, 0 were there already" in capsys.readouterr().out
    names = await asyncio.to_thread(emergency_work.enrolled, site)
    assert [each.username for each in names] == ["ana"]
    assert PASSWORD not in str(names)
