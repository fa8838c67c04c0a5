"""The stream of alerts as clients meet it: real sockets, a real database, two replicas."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from deployments.data.alerts.alert import To
from serve_app.alerts import hub, stream
from tests.serve_app.alerts.conftest import (
    Replica,
    Served,
    begun,
    closed,
    eventually,
    next_of,
)


async def refused(
    replica: Replica, who: str | None = "physician", query: str = ""
) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as caught:
        async with replica.stream(who, query):
            pass
    return caught.value


async def test_open_alerts_come_first_then_every_event_to_those_it_calls(
    served: Served, replica: Replica
) -> None:
    before = await served.ward.raised()
    async with (
        replica.stream() as mine,
        replica.stream("nurse") as raiser,
        replica.stream("colleague") as stranger,
    ):
        hello, opened = await begun(mine)
        assert hello["resumed"] is False
        assert [each["id"] for each in opened["alerts"]] == [before]
        assert (await begun(stranger))[1]["alerts"] == []
        await begun(raiser)
        id = await served.ward.raised(severity="high")
        raised = await next_of(mine)
        assert raised["type"] == "alert.raised"
        assert (raised["alert"]["id"], raised["alert"]["severity"]) == (id, "high")
        assert raised["alert"]["text"]
        await mine.send(json.dumps({"type": "acknowledge", "id": id}))
        told = await next_of(mine, "alert.acknowledged")
        assert told["by"]["account"] == served.ward.physician.principal.id
        assert (await next_of(raiser, "alert.acknowledged"))["seq"] == told["seq"]
        await served.ward.alerts.resolve(served.ward.physician, id)
        assert (await next_of(raiser))["type"] == "alert.resolved"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stranger.recv(), 0.3)
    deliveries = served.ward.owner.entries("alert-delivery")
    streamed = [each for each in deliveries if each["details"]["via"] == "stream"]
    assert {each["patient"] for each in streamed} == {served.ward.patient}
    assert id in str([each["details"]["alerts"] for each in streamed])


async def test_an_acknowledgement_is_confirmed_and_a_wrong_one_is_refused_by_name(
    served: Served, replica: Replica
) -> None:
    id = await served.ward.raised()
    async with replica.stream() as mine:
        await begun(mine)
        for sent, code in (
            ("{", "invalid_json"),
            ("[]", "unknown_type"),
            ('{"type": "shout"}', "unknown_type"),
            ('{"type": "acknowledge"}', "invalid_value"),
            ('{"type": "acknowledge", "id": "x"}', "not_found"),
        ):
            await mine.send(sent)
            answer = await next_of(mine)
            assert (answer["type"], answer["code"]) == ("error", code)
        await mine.send('{"type": "ping"}')
        assert (await next_of(mine))["type"] == "pong"
        await mine.send(json.dumps({"type": "acknowledge", "id": id}).encode())
        confirmed = await next_of(mine, "confirmed")
        assert (confirmed["id"], confirmed["alert"]["state"]) == (id, "acknowledged")


async def test_a_replica_elsewhere_goes_on_where_the_client_was(served: Served) -> None:
    """The cursor of one replica in another, as after the loss of a cell: nothing missed or twice."""
    async with served.replica() as first, served.replica() as second:
        async with first.stream() as mine:
            hello, _ = await begun(mine)
            await served.ward.raised()
            seen = await next_of(mine, "alert.raised")
        missed = [await served.ward.raised() for _ in range(3)]
        async with second.stream(query=f"?after={seen['cursor']}") as mine:
            assert (await next_of(mine))["resumed"] is True
            told = [await next_of(mine) for _ in missed]
            assert [each["alert"]["id"] for each in told] == missed
            assert len((await next_of(mine))["alerts"]) == 4
            await served.ward.raised()
            last = await next_of(mine)
            assert last["seq"] == told[-1]["seq"] + 1
        assert hello["cursor"] != seen["cursor"]


async def test_a_cursor_of_another_database_begins_anew_instead_of_leaving_something_out(
    served: Served, replica: Replica
) -> None:
    await served.ward.raised()
    other = "1.0193b5f2-0000-7000-8000-000000000000"
    async with replica.stream(query=f"?after={other}") as mine:
        hello, opened = await begun(mine)
        assert hello["resumed"] is False
        assert len(opened["alerts"]) == 1


async def test_while_the_database_is_away_streams_stay_and_say_so_and_then_miss_nothing(
    served: Served, replica: Replica
) -> None:
    async with replica.stream() as mine, replica.stream("nurse") as other:
        await begun(mine)
        await begun(other)
        served.allow_database(False)
        assert (await next_of(mine))["type"] == "delayed"
        served.allow_database(True)
        id = await raised_eventually(served)
        told = await next_of(mine, "alert.raised")
        assert told["alert"]["id"] == id
        assert (await next_of(other, "alert.raised"))["seq"] == told["seq"]
        await next_of(mine, "current")


async def raised_eventually(served: Served) -> str:
    deadline = time.monotonic() + 10
    while True:
        try:
            return await served.ward.raised()
        except Exception:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)


async def test_without_notices_the_feed_finds_events_by_looking(
    served: Served, replica: Replica
) -> None:
    await replica.feed._listener.end()
    async with replica.stream() as mine:
        await begun(mine)
        id = await served.ward.raised()
        assert (await next_of(mine, "alert.raised"))["alert"]["id"] == id


async def test_refusals_before_the_stream_have_a_status_and_a_problem(
    served: Served, replica: Replica
) -> None:
    for who, query, status, code in (
        (None, "", 401, "credentials_required"),
        ("nobody", "", 401, "invalid_credentials"),
        ("analyst", "", 403, "insufficient_scope"),
        ("physician", "?after=x", 400, "invalid_value"),
        ("physician", "?other=1", 400, "unsupported_parameter"),
        ("physician", "?after=&after=", 400, "invalid_value"),
    ):
        response = (await refused(replica, who, query)).response
        assert response.status_code == status
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["x-request-id"]
        assert json.loads(response.body)["code"] == code
    async with replica.client() as client:
        answer = await client.get("/v1/alerts/stream")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
    # Refusals for want of a right go by the journal, which the chain takes up in the background.
    await eventually(lambda: len(served.ward.owner.entries("access")) == 3)


async def test_an_unknown_path_is_404_to_a_websocket_too(replica: Replica) -> None:
    for path in ("/v1/alerts/nothing", "/v1/chat/completions"):
        at = f"ws://127.0.0.1:{replica.port}{path}"
        headers = {"authorization": "Bearer physician"}
        with pytest.raises(InvalidStatus) as caught:
            await connect(at, additional_headers=headers, proxy=None)
        assert caught.value.response.status_code == 404


async def test_a_browser_offers_its_token_as_a_subprotocol_and_gets_ours_back(
    replica: Replica,
) -> None:
    offered = [stream.PROTOCOL, "bearer.physician"]
    async with replica.stream(None, subprotocols=offered) as mine:
        assert mine.subprotocol == stream.PROTOCOL
        assert "physician" not in str(mine.response)
        await begun(mine)


async def test_streams_are_bounded_for_a_person_and_for_a_replica(replica: Replica) -> None:
    async with replica.stream() as one, replica.stream(), replica.stream():
        response = (await refused(replica)).response
        assert response.status_code == 429
        assert json.loads(response.body)["code"] == "too_many_streams"
        async with replica.stream("nurse"), replica.stream("screen"):
            response = (await refused(replica, "colleague")).response
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        await one.close()
        await eventually(lambda: len(replica.hub._outboxes) == 2)
        async with replica.stream() as again:
            await begun(again)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and heartbeats are looked after ten times a second."""
    monkeypatch.setattr(stream, "VERIFY_S", 0.1)
    monkeypatch.setattr(stream, "HEARTBEAT_S", 0.2)


@pytest.mark.usefixtures("impatient")
async def test_a_heartbeat_tells_the_time_and_where_to_go_on(
    served: Served, replica: Replica
) -> None:
    async with replica.stream("colleague") as stranger:
        await begun(stranger)
        await served.ward.raised()
        async with asyncio.timeout(10):
            while not (beat := await next_of(stranger, "heartbeat"))["cursor"]:
                pass
    # An event that was not for this client has moved its place on.
    async with replica.stream("colleague", f"?after={beat['cursor']}") as stranger:
        hello, _ = await begun(stranger)
        assert hello["resumed"] is True


@pytest.mark.usefixtures("impatient")
async def test_a_stream_ends_with_its_credentials(served: Served, replica: Replica) -> None:
    async with replica.stream() as mine:
        await begun(mine)
        del served.tokens.principals["physician"]
        assert await closed(mine) == (1008, "invalid_credentials")


@pytest.mark.usefixtures("impatient")
async def test_no_stream_lasts_longer_than_a_request_may(served: Served) -> None:
    async with served.replica(lasts_s=0.2) as brief, brief.stream() as mine:
        assert await closed(mine) == (1012, "connect_again")


async def test_a_client_that_does_not_read_is_closed_and_holds_nobody_up(
    served: Served, replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "QUEUE", 4)
    monkeypatch.setattr(stream, "SEND_S", 0.3)
    async with replica.stream("nurse", max_queue=1, compression=None) as slow:
        monkeypatch.setattr(hub, "QUEUE", 256)
        async with replica.stream() as quick:
            await begun(quick)
            padding = "x" * 400_000
            for number in range(12):
                assert replica.hub.broadcast({"type": "mode.changed", "n": number, "x": padding})
                assert (await next_of(quick))["n"] == number
            await eventually(lambda: len(replica.hub._outboxes) == 1)
        assert await closed(slow) == (1013, "too_slow")


async def test_what_concerns_everybody_is_told_to_all_of_this_replica(replica: Replica) -> None:
    async with replica.stream() as one, replica.stream("colleague") as two:
        for each in (one, two):
            await begun(each)
        assert replica.hub.broadcast({"type": "mode.changed", "mode": "emergency"}) == 2
        for each in (one, two):
            message = await next_of(each)
            assert (message["type"], message["mode"]) == ("mode.changed", "emergency")
            assert message["server_time"]


@pytest.mark.parametrize(
    ("size", "count", "expected"),
    [(5000, 1, (1009, "message_too_large")), (20, 40, (1008, "too_many_messages"))],
)
async def test_a_client_that_says_too_much_is_closed(
    replica: Replica, size: int, count: int, expected: tuple[int, str]
) -> None:
    async with replica.stream() as mine:
        await begun(mine)
        with suppress(ConnectionClosed):
            for _ in range(count):
                await mine.send('{"type": "ping"}'.ljust(size))
        assert await closed(mine) == expected


async def test_a_replica_that_stops_sends_its_clients_elsewhere(served: Served) -> None:
    async with served.replica() as stopping:
        mine = await stopping.stream()
        await begun(mine)
    assert (await closed(mine))[0] == 1012


async def test_alerts_wait_while_the_chain_refuses_and_are_shown_only_once_on_record(
    served: Served, replica: Replica
) -> None:
    owner = served.ward.owner
    async with replica.stream() as mine:
        await begun(mine)
        id = await served.ward.raised(to=To("role", role="nurse"), by=served.ward.physician)
        await next_of(mine, "alert.raised")
        owner.rows(
            "ALTER TABLE audit.entry ADD CONSTRAINT broken CHECK (action <> 'alert-delivery') NOT VALID"
        )
        await served.ward.alerts.resolve(served.ward.physician, id)
        assert (await next_of(mine))["type"] == "delayed"
        owner.rows("ALTER TABLE audit.entry DROP CONSTRAINT broken")
        assert (await next_of(mine, "alert.resolved"))["alert"]["id"] == id
