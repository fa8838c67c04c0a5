"""Signing in, and being known, while one database takes over from another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from deployments.data.accounts import remembered
from deployments.data.database import SILENT_S, Database
from deployments.data.scopes import parse
from tests.deployments.data.switchboard import Switchboard
from tests.serve_app.auth.conftest import PASSWORD, Surface, bearer

LATE_S = 1.0


@pytest.fixture
async def board(dsns: tuple[str, str]) -> AsyncIterator[Switchboard]:
    made = Switchboard(dsns[0])
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
async def database(board: Switchboard) -> AsyncIterator[Database]:
    """What the surface signs in by."""
    opened = Database(board.dsn, connections=4, failover_wait_s=10.0)
    await opened.open()
    yield opened
    await board.turn("open")
    await opened.close()


async def models(surface: Surface, token: str) -> tuple[int, float]:
    """Status and seconds of a request that needs no database."""
    began = time.monotonic()
    answer = await surface.client.get("/v1/models", headers=bearer(token))
    return answer.status_code, time.monotonic() - began


async def go_away(way: str, board: Switchboard) -> None:
    if way == "refused":
        await board.end()
    else:
        await board.turn("silent")
        board.cut()


@pytest.mark.parametrize("way", ["refused", "silent"])
async def test_sign_in_step_up_and_refresh_wait_and_succeed(
    way: str, surface: Surface, board: Switchboard
) -> None:
    await surface.add("ana")
    first = (await surface.sign_in("ana")).json()
    await go_away(way, board)
    form = {"grant_type": "refresh_token", "refresh_token": first["refresh_token"]}
    waiting = [
        asyncio.create_task(surface.sign_in("ana")),
        asyncio.create_task(surface.client.post("/v1/auth/token", data=form)),
        asyncio.create_task(
            surface.client.post(
                "/v1/auth/step-up",
                json={"password": PASSWORD},
                headers=bearer(first["access_token"]),
            )
        ),
        asyncio.create_task(surface.client.post("/v1/auth/passkeys/challenge", json={})),
    ]
    await asyncio.sleep(1.0)
    assert not any(task.done() for task in waiting)
    await board.turn("open")
    if way == "silent":
        board.cut()
    answers = await asyncio.gather(*waiting)
    assert [answer.status_code for answer in answers] == [200] * 4, [each.text for each in answers]


@pytest.mark.parametrize("way", ["refused", "silent"])
async def test_who_is_known_does_not_notice(
    way: str, surface: Surface, board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is fresh: every request would ask the database.
    monkeypatch.setattr(surface.accounts.authority._sessions, "_fresh_s", 0.0)
    monkeypatch.setattr(surface.accounts.authority._keys, "_fresh_s", 0.0)
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    key = await surface.desk.create_key("k", parse("ai"), "hospital")
    assert [(await models(surface, each))[0] for each in (token, key)] == [200, 200]
    await go_away(way, board)
    first = [await models(surface, token), await models(surface, key)]
    assert [status for status, _ in first] == [200, 200]
    assert sum(lasted_s for _, lasted_s in first) < SILENT_S + LATE_S
    later = await asyncio.gather(*(models(surface, each) for each in (token, key) * 50))
    assert {status for status, _ in later} == {200}
    assert max(lasted_s for _, lasted_s in later) < SILENT_S


async def test_who_is_new_passes_on_a_signature_and_waits_with_a_key(
    surface: Surface, board: Switchboard
) -> None:
    await surface.add("ana")
    tokens = [(await surface.sign_in("ana")).json()["access_token"] for _ in range(3)]
    key = await surface.desk.create_key("k", parse("ai"), "hospital")
    await go_away("silent", board)
    status, lasted_s = await models(surface, tokens[0])
    assert status == 200
    assert lasted_s < SILENT_S + LATE_S < remembered.LOOKUP_S
    for token in tokens[1:]:
        status, lasted_s = await models(surface, token)
        assert status == 200
        assert lasted_s < SILENT_S
    waiting = asyncio.create_task(models(surface, key))
    await asyncio.sleep(1.0)
    assert not waiting.done()
    await board.turn("open")
    board.cut()
    assert (await waiting)[0] == 200


async def test_a_key_that_never_came_here_is_known_while_the_database_is_away(
    surface: Surface, board: Switchboard
) -> None:
    kept = await surface.desk.create_key("k", parse("ai"), "hospital")
    gone = await surface.desk.create_key("g", parse("ai"), "hospital")
    await surface.desk.revoke_key(gone.split("_")[1])
    learned = await surface.accounts.authority.learn_keys(deadline=time.monotonic() + 5)
    assert learned == 1
    await go_away("silent", board)
    status, lasted_s = await models(surface, kept)
    assert status == 200
    assert lasted_s < SILENT_S + LATE_S
    waiting = asyncio.create_task(models(surface, gone))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await board.turn("open")
    board.cut()
    assert (await waiting)[0] == 401


async def test_a_revoked_session_is_refused_once_the_database_is_back(
    surface: Surface, board: Switchboard
) -> None:
    await surface.add("ana")
    headers = await surface.signed_in("ana")
    await go_away("refused", board)
    while not surface.database.is_away:
        await asyncio.sleep(0.05)
        await models(surface, headers["authorization"].removeprefix("Bearer "))
        surface.accounts.authority.changed()
    await surface.desk.disable("ana")
    await board.turn("open")
    for _ in range(100):
        surface.accounts.authority.changed()
        answer = await surface.client.get("/v1/models", headers=headers)
        if answer.status_code == 401:
            return
        await asyncio.sleep(0.05)
    pytest.fail("a session that was ended is still taken")
