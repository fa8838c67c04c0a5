"""Chats while one database takes over from another: streams go on, and are on record as they end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from deployments.data.database import Database
from tests.deployments.data.interactions.conftest import chained
from tests.deployments.data.records.conftest import House, Owner
from tests.deployments.data.switchboard import Switchboard
from tests.serve_app.ai.hospital import Hospital
from tests.serve_app.fake_language import ASK, HELLO, FakeLanguage, http_client

CHAT = "/v1/chat/completions"
AWAY_S = 1.0


@pytest.fixture
async def board(dsns: tuple[str, str]) -> AsyncIterator[Switchboard]:
    made = Switchboard(dsns[0])
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
async def database(board: Switchboard) -> AsyncIterator[Database]:
    """What the hospital is on."""
    opened = Database(board.dsn, connections=4, failover_wait_s=10.0)
    await opened.open()
    yield opened
    await board.turn("open")
    board.cut()
    await opened.close()


async def test_a_stream_about_a_patient_waits_for_its_record_before_its_first_token_and_its_end(
    hospital: Hospital, house: House, owner: Owner, board: Switchboard
) -> None:
    patient = await house.patient()

    async def come_back() -> None:
        await asyncio.sleep(AWAY_S)
        assert service.requests == []
        await board.turn("open")
        board.cut()

    async def go_away() -> None:
        board.freeze()
        loop.call_later(AWAY_S, lambda: returning.append(asyncio.ensure_future(back())))

    async def back() -> None:
        await board.turn("open")
        board.cut()

    loop = asyncio.get_running_loop()
    returning: list[asyncio.Future[None]] = []
    service = FakeLanguage(HELLO[0], go_away, *HELLO[1:])
    ask = {**ASK, "stream": True, "metadata": {"patient": f"Patient/{patient}"}}
    async with (
        hospital.surface(service, house.physician.principal) as app,
        http_client(app) as client,
    ):
        board.freeze()
        first_return = asyncio.create_task(come_back())
        answer = await client.post(CHAT, json=ask)
        await asyncio.gather(first_return, *returning)
    assert answer.status_code == 200, answer.text
    assert answer.text.endswith("data: [DONE]\n\n")
    name = answer.headers["x-interaction-id"]
    assert chained(owner, name) == [("ai-request", "success"), ("ai-answer", "success")]


async def test_a_chat_without_a_patient_does_not_notice(
    hospital: Hospital, house: House, board: Switchboard
) -> None:
    service = FakeLanguage()
    async with (
        hospital.surface(service, house.physician.principal) as app,
        http_client(app) as client,
    ):
        board.freeze()
        async with asyncio.timeout(AWAY_S):
            answer = await client.post(CHAT, json=ASK)
        board.cut()
        await board.turn("open")
    assert answer.status_code == 200
    assert json.loads(answer.text)["choices"]
