"""Bodies made to break a server: refused with 4xx in the surface's own error shape, never a 500."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.surface.conftest import Patients
from tests.surface.world import FHIR, World, observation

CHAT = {"model": "gemma3-demo", "messages": [{"role": "user", "content": "olá"}]}
PATHS = {
    "/fhir/Observation": FHIR,
    "/fhir": FHIR,
    "/v1/chat/completions": "application/json",
    "/v1/ai/decisions": "application/json",
    "/v1/break-glass": "application/json",
}


@pytest.fixture(scope="module")
def clients(world: World, physician: httpx.Client) -> dict[str, httpx.Client]:
    """Who asks on which path."""
    own = ("/v1/ai/decisions", "/v1/break-glass")
    return {path: physician if path in own else world.demo for path in PATHS}


def deep(levels: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


def broken() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "not JSON", b"olah"
    yield "cut off", b'{"resourceType": "Observation", "status'
    yield "two values", b"{} {}"
    yield "trailing comma", b'{"a": 1,}'
    yield "single quotes", b"{'a': 1}"
    yield "NaN", b'{"valueQuantity": {"value": NaN}}'
    yield "infinity", b'{"valueQuantity": {"value": -Infinity}}'
    yield "a byte order mark", b'\xef\xbb\xbf{"resourceType": "Observation"}'
    yield "UTF-16", '{"resourceType": "Observation"}'.encode("utf-16")
    yield "Latin-1", '{"name": "São"}'.encode("latin-1")
    yield "invalid UTF-8", b'{"resourceType": "Obs\xff\xfe"}'
    yield "overlong UTF-8", b'{"resourceType": "\xc0\xaf"}'
    yield "a surrogate in UTF-8", b'{"resourceType": "\xed\xa0\x80"}'
    yield "a lone escaped surrogate", b'{"resourceType": "\\ud800"}'
    yield "a control character", b'{"resourceType": "a\x01b"}'
    yield "a raw NUL", b'{"resourceType": "a\x00b"}'
    yield "a key twice", b'{"resourceType": "Observation", "resourceType": "Patient"}'
    yield "a key twice, once escaped", b'{"model": "a", "\\u006dodel": "b"}'
    yield "deep lists", deep(5_000)
    yield "deep objects", deep(5_000, '{"a":', "}")
    yield "very deep", deep(1_000_000)
    yield "deep in a resource", b'{"resourceType":"Observation","extension":' + deep(70) + b"}"
    yield "many lists", b"[" + b"[]," * 400_000 + b"[]]"
    yield "a list", b"[1, 2, 3]"
    yield "a number", b"1"
    yield "a text", b'"x"'
    yield "null", b"null"


BROKEN = dict(broken())


def assert_refused(answer: httpx.Response, path: str) -> None:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:300])
    shown = answer.json()
    if path.startswith("/fhir"):
        assert shown["resourceType"] == "OperationOutcome"
        assert answer.headers["content-type"].startswith(FHIR)
    elif path.startswith("/v1/chat"):
        assert shown["error"]["message"]
    else:
        assert shown["status"] == answer.status_code


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("path", PATHS)
def test_a_body_that_is_no_good_json_is_refused(
    clients: dict[str, httpx.Client], path: str, what: str
) -> None:
    answer = clients[path].post(path, content=BROKEN[what], headers={"content-type": PATHS[path]})
    assert_refused(answer, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "kind",
    [
        *("", "text/plain", "application/xml", "multipart/form-data; boundary=x", "*/*"),
        *("application/json; charset=latin-1", "application/json; charset=utf-16", "application"),
        *("application/x-www-form-urlencoded", "application/json, text/plain", "json"),
    ],
)
def test_a_content_type_that_is_not_read_is_refused(
    clients: dict[str, httpx.Client], path: str, kind: str
) -> None:
    headers = {"content-type": kind} if kind else {}
    answer = clients[path].post(path, content=json.dumps(CHAT).encode(), headers=headers)
    assert answer.status_code == 415, answer.text
    assert_refused(answer, path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"])
def test_a_compressed_body_is_refused_before_it_is_unpacked(
    clients: dict[str, httpx.Client], path: str, encoding: str
) -> None:
    headers = {"content-type": PATHS[path], "content-encoding": encoding}
    answer = clients[path].post(path, content=b"\x1f\x8b" + bytes(100), headers=headers)
    assert answer.status_code == 415
    assert_refused(answer, path)


@pytest.mark.parametrize("path", PATHS)
def test_a_body_over_the_limit_is_refused_announced_or_not(
    clients: dict[str, httpx.Client], path: str
) -> None:
    body = b'{"a": "' + b"x" * (5 * 2**20) + b'"}'
    headers = {"content-type": PATHS[path]}
    answer = clients[path].post(path, content=body, headers=headers)
    assert answer.status_code == 413
    assert_refused(answer, path)

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 2**16):
            yield body[at : at + 2**16]

    try:
        answer = clients[path].post(path, content=pieces(), headers=headers)
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        return  # refused, answered and closed while the client still sent
    assert answer.status_code == 413


@pytest.mark.parametrize("where", ["note", "code", "unit", "status", "extra", "language"])
def test_a_nul_in_any_text_of_a_resource_is_refused_not_stored(
    world: World, patients: Patients, where: str
) -> None:
    subject = {"reference": f"Patient/{patients.cared.patient}"}
    resource: dict[str, Any] = observation(subject)
    text = "a\x00b"
    match where:
        case "note":
            resource["note"] = [{"text": text}]
        case "code":
            resource["code"] = {"coding": [{"system": "urn:x", "code": text}]}
        case "unit":
            resource["valueQuantity"]["unit"] = text
        case "extra":
            resource["extension"] = [{"url": "urn:x", "valueString": text}]
        case _:
            resource[where] = text
    answer = world.demo.post("/fhir/Observation", json=resource, headers={"content-type": FHIR})
    assert answer.status_code in (400, 422), answer.text
    assert_refused(answer, "/fhir/Observation")


def test_a_nul_is_refused_wherever_else_text_is_taken(
    world: World, patients: Patients, physician: httpx.Client
) -> None:
    patient = {"resourceType": "Patient", "name": [{"family": "a\x00b"}]}
    bundle = {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [{"request": {"method": "POST", "url": "Patient"}, "resource": patient}],
    }
    reference = f"Patient/{patients.cared.patient}"
    for client, path, body in (
        (world.demo, "/fhir/Patient", patient),
        (world.demo, "/fhir", bundle),
        (physician, "/v1/break-glass", {"patient": reference, "reason": "a\x00b" * 10}),
        (physician, "/v1/ai/decisions", {"interaction": "a\x00b", "decision": "accepted"}),
        (physician, "/v1/ai/decisions", {"interaction": "x", "decision": "edited\x00"}),
        (world.demo, "/v1/chat/completions", {**CHAT, "metadata": {"patient": "Patient/\x00"}}),
        (world.demo, "/v1/chat/completions", {**CHAT, "model": "a\x00b"}),
    ):
        headers = {"content-type": FHIR if path.startswith("/fhir") else "application/json"}
        assert_refused(client.post(path, json=body, headers=headers), path)


def test_a_chat_with_a_nul_in_a_message_about_a_patient_is_kept_or_refused_but_no_500(
    world: World, physician: httpx.Client, patients: Patients
) -> None:
    body = {
        **CHAT,
        "messages": [{"role": "user", "content": "antes\x00depois"}],
        "metadata": {"patient": f"Patient/{patients.cared.patient}"},
    }
    answer = physician.post("/v1/chat/completions", json=body)
    assert answer.status_code in (200, 400, 422), answer.text


@pytest.mark.parametrize(
    "number",
    [
        *("1e400", "-1e400", "9" * 400, "0." + "1" * 5_000, "1e-400", "18446744073709551616"),
        *("1E+99999999999", "-0", "00", "+1", "0x10", "1_000", ".5", "1."),
    ],
)
def test_numbers_of_any_size_are_kept_exactly_or_refused(
    world: World, patients: Patients, number: str
) -> None:
    subject = {"reference": f"Patient/{patients.cared.patient}"}
    text = json.dumps(observation(subject, value=12345)).replace("12345", number)
    answer = world.demo.post(
        "/fhir/Observation", content=text.encode(), headers={"content-type": FHIR}
    )
    assert answer.status_code in (201, 400, 422), answer.text
    if answer.status_code == 201:
        at = answer.headers["location"].split("/fhir")[1]
        again = world.demo.get(f"/fhir{at}")
        assert float(again.json()["valueQuantity"]["value"]) == float(number)


@pytest.mark.parametrize(
    "change",
    [
        {"resourceType": "Patient"},
        {"resourceType": "Nothing"},
        {"resourceType": ["Observation"]},
        {"status": "unheard-of"},
        {"status": ["final"]},
        {"code": "8867-4"},
        {"code": []},
        {"subject": None},
        {"subject": {"reference": "Patient/"}},
        {"subject": {"reference": "http://elsewhere/Patient/1"}},
        {"subject": {"reference": "Patient/1/_history/../.."}},
        {"effectiveDateTime": "ontem"},
        {"effectiveDateTime": "2024-02-31"},
        {"effectiveDateTime": "9999999-01-01"},
        {"effectiveDateTime": {"$date": 1}},
        {"valueQuantity": {"value": "72"}},
        {"valueQuantity": {"value": True}},
        {"valueQuantity": [1]},
        {"valueString": "x"},
        {"unheardOf": 1},
        {"__proto__": {"admin": True}},
        {"meta": []},
        {"contained": [{"resourceType": "Observation"}] * 3},
        {"text": {"status": "generated", "div": "<div><script>alert(1)</script></div>"}},
        {"component": [{}]},
        {"extension": [{}]},
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_a_resource_that_is_not_r4_is_refused_with_the_path_of_its_fault(
    world: World, patients: Patients, change: dict[str, Any]
) -> None:
    resource = observation({"reference": f"Patient/{patients.cared.patient}"})
    resource |= change
    answer = world.demo.post("/fhir/Observation", json=resource, headers={"content-type": FHIR})
    assert answer.status_code in (400, 422), answer.text
    assert_refused(answer, "/fhir/Observation")


def test_what_the_server_decides_is_not_taken_from_the_caller(
    world: World, patients: Patients
) -> None:
    resource = observation({"reference": f"Patient/{patients.cared.patient}"})
    resource |= {"id": "a\x00b", "meta": {"versionId": 7, "lastUpdated": "1999-01-01T00:00:00Z"}}
    answer = world.demo.post("/fhir/Observation", json=resource, headers={"content-type": FHIR})
    assert answer.status_code in (201, 400, 422)
    if answer.status_code == 201:
        kept = answer.json()
        assert kept["id"] != resource["id"]
        assert kept["meta"]["versionId"] == "1"
        assert not kept["meta"]["lastUpdated"].startswith("1999")


def test_a_bundle_of_too_many_entries_is_refused(world: World) -> None:
    entry = {
        "request": {"method": "POST", "url": "Patient"},
        "resource": {"resourceType": "Patient"},
    }
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry] * 1_000}
    answer = world.demo.post("/fhir", json=bundle, headers={"content-type": FHIR})
    assert answer.status_code in (400, 413, 422), answer.text
    assert_refused(answer, "/fhir")


@pytest.mark.parametrize(
    "entry",
    [
        *({}, {"request": {}}, {"request": {"method": "PATCH", "url": "Patient/1"}}),
        {"request": {"method": "POST", "url": "Patient"}},
        {"request": {"method": "POST", "url": "../../v1/auth/token"}, "resource": {}},
        {"request": {"method": "GET", "url": "Patient?name=a&name"}},
        {"request": {"method": "GET", "url": "Patient/$everything"}},
        {"request": {"method": "DELETE", "url": "Patient?name=a"}},
        {"request": {"method": "POST", "url": "Bundle"}, "resource": {"resourceType": "Bundle"}},
        {
            "request": {"method": "POST", "url": "AuditEvent"},
            "resource": {"resourceType": "AuditEvent"},
        },
        {
            "fullUrl": "urn:uuid:x",
            "request": {"method": "POST", "url": "Patient", "ifNoneExist": "nothing=x"},
            "resource": {"resourceType": "Patient"},
        },
        None,
        [],
        "x",
    ],
    ids=lambda entry: json.dumps(entry)[:50],
)
def test_a_transaction_with_an_entry_that_is_none_is_refused(world: World, entry: Any) -> None:
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    answer = world.demo.post("/fhir", json=bundle, headers={"content-type": FHIR})
    assert_refused(answer, "/fhir")


def exchange(world: World, request: bytes, *, linger_s: float = 5.0) -> bytes:
    """What comes back for bytes as they are, until the server closes or falls silent."""
    host, port = world.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=linger_s) as connection:
        connection.sendall(request)
        answer = b""
        deadline = time.monotonic() + linger_s
        while time.monotonic() < deadline:
            try:
                piece = connection.recv(65536)
            except TimeoutError:
                break
            if not piece:
                break
            answer += piece
            head, whole, rest = answer.partition(b"\r\n\r\n")
            if whole and f"content-length: {len(rest)}".encode() in head.lower():
                break
        return answer


@pytest.mark.parametrize(
    "line",
    [
        b"GET /fhir/Patient?name=\xff\xfe HTTP/1.1\r\nhost: x\r\n",
        b"GET /fhir/Patient HTTP/1.1\r\nhost: x\r\nx-request-id: \xff\x00\r\n",
        b"GET /fhir/Patient HTTP/1.1\r\nhost: x\r\nif-match: \xc3\x28\r\n",
        b"GET /fhir/Patient HTTP/1.1\r\nhost: x\r\nbad header\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: x\r\n",
        b"GET /fhir/Patient HTTP/1.1\r\nhost: x\r\n" + b"x-a: b\r\n" * 300,
        b"POST /fhir/Patient HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n",
        b"POST /fhir/Patient HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n",
        b"POST /fhir/Patient HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, chunked\r\n",
        b"BREW /fhir/Patient HTTP/1.1\r\nhost: x\r\n",
        b"GET http://elsewhere/fhir/Patient HTTP/1.1\r\nhost: x\r\n",
    ],
    ids=lambda line: repr(line[:60]),
)
def test_a_request_that_is_hardly_http_is_refused_and_the_server_lives(
    world: World, line: bytes
) -> None:
    key = world.credentials["api_key"].encode()
    answer = exchange(world, line + b"authorization: Bearer " + key + b"\r\n\r\n", linger_s=2)
    if answer:
        assert answer.startswith(b"HTTP/1.1 ")
        assert answer[9:12] < b"500", answer[:300]
    assert world.bare.get("/health/live").status_code == 200


def test_the_server_still_works_after_all_this(world: World, patients: Patients) -> None:
    assert world.demo.get(f"/fhir/Patient/{patients.cared.patient}").status_code == 200
    assert world.bare.get("/health/ready").status_code == 200
