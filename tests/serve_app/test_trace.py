from __future__ import annotations

import pytest

from serve_app.trace import RequestIds, request_id_from, trace_of
from tests.serve_app.fake_language import ASK, FakeLanguage, app_of, http_client


@pytest.mark.parametrize("given", ["a", "ward-7.2026_11", "0" * 128])
async def test_a_well_formed_id_comes_back_and_goes_to_the_engine(given: str) -> None:
    service = FakeLanguage()
    async with http_client(app_of(service)) as client:
        answer = await client.post(
            "/v1/chat/completions", json=ASK, headers={"x-request-id": given}
        )
    assert answer.headers.get_list("x-request-id") == [given]
    assert service.requests[0].id.startswith(given + ".")


async def test_one_id_sent_twice_is_two_requests_for_the_engine() -> None:
    service = FakeLanguage()
    async with http_client(app_of(service)) as client:
        for _ in range(2):
            await client.post("/v1/chat/completions", json=ASK, headers={"x-request-id": "same"})
    assert service.requests[0].id != service.requests[1].id


@pytest.mark.parametrize("given", [b"", b"a b", b"0" * 129, b"a\xff", b'a"b', b"a,b"])
def test_an_ill_formed_id_is_replaced(given: bytes) -> None:
    request_id, own = request_id_from([(b"x-request-id", given)])
    assert not own
    assert len(request_id) == 32


def test_two_ids_are_replaced_by_one() -> None:
    _, own = request_id_from([(b"x-request-id", b"a"), (b"x-request-id", b"b")])
    assert not own


@pytest.mark.parametrize(
    ("given", "sent"), [([(b"x-request-id", b"ok")], 0), ([(b"x-request-id", b"n o")], 1), ([], 1)]
)
async def test_an_id_that_the_server_outside_echoes_is_not_sent_twice(
    given: list[tuple[bytes, bytes]], sent: int
) -> None:
    started: list[dict[str, object]] = []

    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        assert trace_of(scope).request_id
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):  # type: ignore[no-untyped-def]
        started.append(message)

    scope = {"type": "http", "headers": given}
    await RequestIds(app, echoed_outside=True)(scope, None, send)  # type: ignore[arg-type]
    assert len(started[0]["headers"]) == sent  # type: ignore[arg-type]
