"""Proves that content goes in and out of /fhir/Binary as a stream, by right, on record, and whole."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from configs.args import Limits, RecordsArgs
from deployments.data.audit.chain import Audit
from deployments.data.blobs import Blobs
from deployments.data.blobs.threads import DiskThreads
from deployments.data.database import Database
from deployments.data.errors import CommitUnknown, StoreUnavailable
from deployments.data.records.store import Records
from deployments.data.seal import framing
from deployments.data.seal.sealer import Sealer
from serve_app.fhir import content
from serve_app.fhir.binary import binary_routes
from serve_app.fhir.routes import fhir_routes
from serve_app.services import Services
from serve_app.surface import create_app
from tests.deployments.data.records import people
from tests.deployments.data.records.conftest import Owner, owner
from tests.serve_app.fake_language import FakeLanguage
from tests.serve_app.fhir.conftest import NoChats, Tokens

__all__ = ("owner",)

MB = 2**20
MAX_JSON = 200_000
MARK = b"Zuleica has pneumonia. "


class Disk:
    """A file system with as much room as the test says."""

    free = 100 * 2**30

    def __call__(self, path: Path) -> os.statvfs_result:
        return os.statvfs_result(
            (4096, 4096, 10**9, self.free // 4096, self.free // 4096, 1, 1, 1, 0, 255)
        )


@dataclass
class Ward:
    """An application with one patient, and where the files lie."""

    app: FastAPI
    patient: str
    folder: Path
    disk: Disk
    records: Records

    def client(self, name: str = "physician") -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        headers = {"authorization": f"Bearer {name}"}
        return httpx.AsyncClient(
            transport=transport, base_url="http://records.test/fhir", headers=headers
        )

    @property
    def context(self) -> dict[str, str]:
        return {"x-security-context": f"Patient/{self.patient}"}

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    async def upload(self, data: bytes, type: str = "text/plain", **headers: str) -> str:
        async with self.client() as client:
            sent = {"content-type": type, **self.context, **headers}
            answer = await client.post("/Binary", content=data, headers=sent)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        return id


@pytest.fixture
async def ward(
    database: Database, records: Records, audit: Audit, sealer: Sealer, tmp_path: Path
) -> AsyncIterator[Ward]:
    machine = people.caller("service")
    made = await records.create(machine, "Practitioner", people.practitioner())
    physician = people.caller(practitioner=made.stored.id)
    patient = await records.create(physician, "Patient", people.patient())
    tokens = Tokens()
    tokens.principals = {
        "machine": machine.principal,
        "physician": physician.principal,
        "stranger": people.caller(practitioner="nobody").principal,
        "analyst": people.caller("analyst").principal,
    }
    args = RecordsArgs(max_upload_mb=8, disk_reserve_gb=1.0)
    folder, disk = tmp_path / "blobs", Disk()
    folder.mkdir(mode=0o700)
    blobs = Blobs(sealer, folder, args, statvfs=disk)
    binaries = binary_routes(records, blobs, database, args, max_json_bytes=MAX_JSON)
    others = fhir_routes(records, None, args, max_body_bytes=MAX_JSON)
    services = Services(
        language=FakeLanguage(),
        authority=tokens,
        audit=audit,
        duties=NoChats(),
        routes=(
            lambda app: app.include_router(binaries),
            lambda app: app.include_router(others),
        ),
    )
    yield Ward(create_app(services, Limits()), patient.stored.id, folder, disk, records)
    await blobs.close()


def code_of(answer: httpx.Response) -> str:
    """Our own word for what went wrong, out of an OperationOutcome."""
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome", body
    coding: str = body["issue"][0]["details"]["coding"][0]["code"]
    return coding


async def test_content_of_any_type_goes_in_and_comes_out_as_it_was(ward: Ward) -> None:
    data = os.urandom(3 * framing.CHUNK + 5)
    async with ward.client() as client:
        sent = {"content-type": "application/dicom", **ward.context}
        answer = await client.post("/Binary", content=data, headers=sent)
        assert answer.status_code == 201
        body = answer.json()
        assert body["resourceType"] == "Binary"
        assert body["contentType"] == "application/dicom"
        assert body["securityContext"] == {"reference": f"Patient/{ward.patient}"}
        assert set(body) == {"resourceType", "id", "meta", "contentType", "securityContext"}
        assert answer.headers["location"].endswith(f"/fhir/Binary/{body['id']}/_history/1")
        for path in (f"/Binary/{body['id']}", f"/Binary/{body['id']}/_history/1"):
            found = await client.get(path)
            assert found.status_code == 200
            assert found.content == data
            assert found.headers["content-type"] == "application/dicom"
            assert found.headers["content-length"] == str(len(data))


async def test_what_lies_on_the_disk_and_in_the_database_tells_nothing(
    ward: Ward, owner: Owner
) -> None:
    await ward.upload(MARK * 1000)
    (file,) = ward.files()
    assert MARK not in file.read_bytes()
    for table in ("records.blob", "records.resource", "records.history", "audit.entry"):
        assert MARK.decode() not in str(owner.rows(f"SELECT t::text FROM {table} AS t"))


async def test_nothing_is_run_or_guessed_at_by_a_browser(ward: Ward) -> None:
    id = await ward.upload(b"<script>alert(1)</script>", "text/html; charset=utf-8")
    async with ward.client() as client:
        found = await client.get(f"/Binary/{id}", headers={"accept": "text/html"})
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    assert found.headers["content-disposition"] == f'attachment; filename="{id}"'
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert found.headers["cache-control"] == "no-store"


async def test_fhir_json_is_taken_and_given_within_its_bound(ward: Ward) -> None:
    data = os.urandom(5000)
    resource = {
        "resourceType": "Binary",
        "contentType": "image/png",
        "securityContext": {"reference": f"Patient/{ward.patient}"},
        "data": base64.b64encode(data).decode(),
    }
    json_type = {"content-type": "application/fhir+json"}
    async with ward.client() as client:
        made = await client.post("/Binary", json=resource, headers=json_type)
        assert made.status_code == 201, made.text
        assert "data" not in made.json()
        path = f"/Binary/{made.json()['id']}"
        assert (await client.get(path)).content == data
        for asked in ({"headers": {"accept": "application/fhir+json"}}, {"params": "_format=json"}):
            found = await client.get(path, **asked)
            assert found.headers["content-type"] == "application/fhir+json"
            assert base64.b64decode(found.json()["data"]) == data
            assert found.json()["contentType"] == "image/png"
        large = await ward.upload(bytes(MAX_JSON))
        refused = await client.get(f"/Binary/{large}", headers={"accept": "application/fhir+json"})
        assert refused.status_code == 406
        resource["data"] = base64.b64encode(bytes(MAX_JSON)).decode()
        refused = await client.post("/Binary", json=resource, headers=json_type)
        assert refused.status_code == 413


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"data": "a"}, 422),
        ({"data": 7}, 422),
        ({"contentType": "no type"}, 422),
        ({"contentType": None}, 422),
        ({"contentType": "text/plain\r\nx-evil: 1"}, 422),
        ({"resourceType": "Patient"}, 400),
        ({"unknown": 1}, 400),
        ({"securityContext": {"reference": "Patient/../1"}}, 400),
        ({"securityContext": {"reference": 7}}, 422),
        ({"securityContext": "x"}, 400),
        ({"securityContext": None}, 403),
    ],
)
async def test_a_binary_in_json_that_is_none_is_refused(
    ward: Ward, changed: dict[str, Any], status: int
) -> None:
    resource = {
        "resourceType": "Binary",
        "contentType": "image/png",
        "securityContext": {"reference": f"Patient/{ward.patient}"},
        "data": "AAAA",
        **changed,
    }
    async with ward.client() as client:
        headers = {"content-type": "application/fhir+json; fhirVersion=4.0"}
        answer = await client.post("/Binary", content=json.dumps(resource), headers=headers)
    assert answer.status_code == status, answer.text
    assert ward.files() == []


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=300000-", 206, slice(300000, None)),
        ("bytes=-7", 206, slice(-7, None)),
        ("bytes=262143-262144", 206, slice(262143, 262145)),
        ("bytes=5-999999999", 206, slice(5, None)),
        ("bytes=9-3", 200, slice(None)),
        ("bytes=0-1,5-6", 200, slice(None)),
        ("chunks=1-2", 200, slice(None)),
        ("bytes=-", 200, slice(None)),
        ("bytes=400000-", 416, None),
        ("bytes=-0", 416, None),
    ],
)
async def test_ranges(ward: Ward, asked: str, status: int, part: slice | None) -> None:
    data = os.urandom(400_000)
    id = await ward.upload(data)
    async with ward.client() as client:
        found = await client.get(f"/Binary/{id}", headers={"range": asked})
    assert found.status_code == status
    if part is not None:
        assert found.content == data[part]
        assert found.headers["content-length"] == str(len(data[part]))
    if status == 206:
        assert part is not None
        start, end, _ = part.indices(len(data))
        assert found.headers["content-range"] == f"bytes {start}-{end - 1}/{len(data)}"


async def test_empty_content_is_content(ward: Ward) -> None:
    id = await ward.upload(b"")
    async with ward.client() as client:
        found = await client.get(f"/Binary/{id}")
    assert (found.status_code, found.content) == (200, b"")
    assert found.headers["content-length"] == "0"


async def test_a_version_that_the_client_has_is_not_sent_again(ward: Ward) -> None:
    id = await ward.upload(b"once")
    async with ward.client() as client:
        found = await client.get(f"/Binary/{id}")
        again = await client.get(f"/Binary/{id}", headers={"if-none-match": found.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_only_who_cares_for_the_patient_uploads_and_downloads(
    ward: Ward, owner: Owner
) -> None:
    id = await ward.upload(b"private")
    sent = {"content-type": "text/plain"}
    async with ward.client("stranger") as stranger:
        for path in (f"/Binary/{id}", f"/Binary/{id}/_history/1", f"/Binary/{id}/_history"):
            assert (await stranger.get(path)).status_code == 404
        assert (await stranger.delete(f"/Binary/{id}")).status_code == 404
        refused = await stranger.post("/Binary", content=b"x", headers=sent | ward.context)
        assert refused.status_code == 404
    async with ward.client("analyst") as analyst:
        assert (await analyst.get(f"/Binary/{id}")).status_code == 403
        refused = await analyst.post("/Binary", content=b"x", headers=sent | ward.context)
        assert refused.status_code == 403
    async with ward.client("") as nobody:
        assert (await nobody.get(f"/Binary/{id}")).status_code == 401
    async with ward.client() as physician:
        refused = await physician.post("/Binary", content=b"x", headers=sent)
        assert (refused.status_code, code_of(refused)) == (403, "patient_required")
    async with ward.client("machine") as machine:
        made = await machine.post("/Binary", content=b"of nobody", headers=sent)
        assert made.status_code == 201
        path = f"/Binary/{made.json()['id']}"
        assert (await machine.get(path)).content == b"of nobody"
    async with ward.client() as physician:
        assert (await physician.get(path)).status_code == 404
    # The refused ones have left nothing.
    assert len(ward.files()) == 2
    assert owner.rows("SELECT count(*) FROM records.blob") == [(2,)]


async def test_uploads_and_downloads_are_on_record_before_they_are_answered(
    ward: Ward, owner: Owner
) -> None:
    id = await ward.upload(b"12345")
    async with ward.client() as client:
        await client.get(f"/Binary/{id}")
    (uploaded,) = owner.entries("upload")
    assert uploaded["resource"] == f"Binary/{id}"
    assert uploaded["patient"] == ward.patient
    assert uploaded["details"]["size"] == 5
    assert uploaded["details"]["blob"] == ward.files()[0].name
    (downloaded,) = owner.entries("download")
    assert (downloaded["resource"], downloaded["patient"]) == (f"Binary/{id}", ward.patient)


async def test_nothing_leaves_while_the_audit_is_away(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await ward.upload(b"private")

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away", retry_after_s=1.0)

    monkeypatch.setattr(Audit, "record", away)
    async with ward.client() as client:
        refused = await client.get(f"/Binary/{id}")
    assert refused.status_code == 503
    assert b"private" not in refused.content


async def test_a_repeated_upload_happens_once_and_leaves_one_file(ward: Ward, owner: Owner) -> None:
    sent = {"content-type": "text/plain", "idempotency-key": "k-1", **ward.context}
    async with ward.client() as client:
        first = await client.post("/Binary", content=b"once", headers=sent)
        again = await client.post("/Binary", content=b"once", headers=sent)
        other = await client.post("/Binary", content=b"twice", headers=sent)
    assert first.status_code == 201
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status_code, code_of(other)) == (422, "idempotency_mismatch")
    assert len(ward.files()) == 1
    assert owner.rows("SELECT count(*) FROM records.blob") == [(1,)]


async def test_a_deleted_one_is_gone_and_its_version_remains(ward: Ward) -> None:
    id = await ward.upload(b"kept")
    async with ward.client() as client:
        assert (await client.delete(f"/Binary/{id}")).status_code == 204
        assert (await client.get(f"/Binary/{id}")).status_code == 410
        assert (await client.get(f"/Binary/{id}/_history/1")).content == b"kept"
        versions = (await client.get(f"/Binary/{id}/_history")).json()
    assert [each["request"]["method"] for each in versions["entry"]] == ["DELETE", "POST"]
    assert "data" not in versions["entry"][1]["resource"]


async def test_other_interactions_and_parameters_are_refused(ward: Ward) -> None:
    id = await ward.upload(b"x")
    async with ward.client() as client:
        whole = {"content-type": "application/fhir+json"}
        body = {"resourceType": "Binary", "id": id, "contentType": "text/plain"}
        assert (await client.put(f"/Binary/{id}", json=body, headers=whole)).status_code == 405
        assert (await client.get("/Binary")).status_code == 405
        assert (await client.get(f"/Binary/{id}?x=1")).status_code == 400
        assert (await client.get(f"/Binary/{id}?_format=xml")).status_code == 406
        assert (await client.get("/Binary/no-such-id")).status_code == 404
        assert (await client.get(f"/Binary/{id}/_history/2")).status_code == 404
        sent = {"content-type": "text/plain", **ward.context}
        for headers in (
            {"content-type": "nothing"},
            {"content-encoding": "gzip"},
            {"content-type": "application/fhir+xml"},
        ):
            refused = await client.post("/Binary", content=b"x", headers=sent | headers)
            assert refused.status_code == 415
        refused = await client.post(
            "/Binary", content=b"x", headers=sent | {"if-none-exist": "_id=1"}
        )
        assert refused.status_code == 400


async def test_too_much_is_refused_before_it_is_read_and_while_it_is(ward: Ward) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(64 * 1024)

    sent = {"content-type": "text/plain", **ward.context}
    async with ward.client() as client:
        refused = await client.post("/Binary", content=bytes(9 * MB), headers=sent)
        assert (refused.status_code, code_of(refused)) == (413, "request_too_large")
        refused = await client.post("/Binary", content=endless(), headers=sent)
        assert refused.status_code == 413
        ward.disk.free = 2**30 + MB
        refused = await client.post("/Binary", content=bytes(2 * MB), headers=sent)
        assert (refused.status_code, code_of(refused)) == (507, "disk_full")
    assert ward.files() == []


async def test_a_failed_write_removes_the_file_and_an_unknown_one_keeps_it(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = {"content-type": "text/plain", **ward.context}
    for error, left in ((StoreUnavailable("away"), 0), (CommitUnknown("unknown"), 1)):

        async def failing(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(Records, "create", failing)
        async with ward.client() as client:
            refused = await client.post("/Binary", content=b"x", headers=sent)
        assert refused.status_code == 503
        assert len(ward.files()) == left


async def test_an_upload_whose_commit_was_unknown_once_keeps_the_file_that_it_committed(
    ward: Ward, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repeat inside finds the first attempt's row, and must not take its file for a copy."""
    settle, asked = Audit.settle, 0

    async def unknown_once(self: Audit, staged: Sequence[UUID], *, deadline: float) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise CommitUnknown("the connection broke")
        await settle(self, staged, deadline=deadline)

    monkeypatch.setattr(Audit, "settle", unknown_once)
    id = await ward.upload(b"once", **{"idempotency-key": "k-1"})
    assert asked == 2
    assert len(ward.files()) == 1
    assert owner.rows("SELECT count(*) FROM records.blob") == [(1,)]
    async with ward.client() as client:
        assert (await client.get(f"/Binary/{id}")).content == b"once"


async def test_damaged_content_is_an_error_and_never_a_shorter_answer(ward: Ward) -> None:
    data = os.urandom(2 * framing.CHUNK)
    id = await ward.upload(data)
    (file,) = ward.files()
    stored = bytearray(file.read_bytes())
    stored[framing.offset_of(1) + 9] ^= 1
    file.write_bytes(stored)
    # Behind the first chunk the headers are out: the stream breaks off short of its length.
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {**request_of(ward), "method": "GET", "path": f"/fhir/Binary/{id}"}
    await ward.app(scope, nothing, send)
    announced = int(dict(sent[0]["headers"])[b"content-length"])
    assert b"".join(each["body"] for each in sent[1:]) == data[: framing.CHUNK]
    assert announced == len(data)
    assert all(each["more_body"] for each in sent[1:])

    stored[framing.offset_of(0) + 9] ^= 1
    file.write_bytes(stored)
    async with ward.client() as client:
        refused = await client.get(f"/Binary/{id}")
        assert (refused.status_code, code_of(refused)) == (500, "seal_broken")
        file.unlink()
        refused = await client.get(f"/Binary/{id}")
        assert (refused.status_code, code_of(refused)) == (500, "blob_lost")


def request_of(ward: Ward, **headers: str) -> dict[str, Any]:
    given = {"authorization": "Bearer physician", "content-type": "text/plain", **ward.context}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/fhir/Binary",
        "raw_path": b"/fhir/Binary",
        "query_string": b"",
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in {**given, **headers}.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


async def test_a_client_that_leaves_or_dawdles_leaves_nothing(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    bodies: Iterator[Message] = iter(
        [
            {"type": "http.request", "body": bytes(MB), "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def leaving() -> Message:
        return next(bodies)

    await ward.app(request_of(ward), leaving, send)
    assert sent == []
    assert ward.files() == []

    monkeypatch.setattr(content, "GRACE_S", 0.3)

    async def dawdling() -> Message:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    began = time.monotonic()
    await ward.app(request_of(ward), dawdling, send)
    assert time.monotonic() - began < 5
    assert sent[0]["status"] == 408
    assert ward.files() == []


async def test_no_more_is_read_than_is_stored(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backpressure: the sender is not asked for more while the disk is busy."""
    asked = 0
    gate = asyncio.Event()
    real = DiskThreads.run

    async def slow(self: DiskThreads, work: Any, *arguments: Any) -> Any:
        await gate.wait()
        return await real(self, work, *arguments)

    monkeypatch.setattr(DiskThreads, "run", slow)

    async def eager() -> Message:
        nonlocal asked
        asked += 1
        return {"type": "http.request", "body": bytes(64 * 1024), "more_body": asked < 40}

    answers: list[Message] = []

    async def send(message: Message) -> None:
        answers.append(message)

    upload = asyncio.create_task(ward.app(request_of(ward), eager, send))
    await asyncio.sleep(0.5)
    assert asked <= framing.CHUNK // (64 * 1024)
    gate.set()
    await upload
    assert answers[0]["status"] == 201
    assert asked == 40


async def test_streams_at_once_are_bounded_and_counted_back(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allow(most: int) -> None:
        monkeypatch.setattr(content.Streams, "most", property(lambda _: most), raising=False)

    allow(0)
    sent = {"content-type": "text/plain", **ward.context}
    async with ward.client() as client:
        refused = await client.post("/Binary", content=b"x", headers=sent)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "2"
        allow(1)
        for _ in range(3):
            made = await client.post("/Binary", content=b"x", headers=sent)
            assert made.status_code == 201
            path = f"/Binary/{made.json()['id']}"
            assert (await client.get(path)).content == b"x"
            assert (await client.get(path, headers={"range": "bytes=9-"})).status_code == 416
            asked = {"accept": "application/fhir+json"}
            assert (await client.get(path, headers=asked)).status_code == 200
