"""Two replicas: what ends a right in one, or at the terminal, ends it in the other at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from deployments.data.accounts.authority import Authority
from deployments.data.accounts.notices import Notices
from deployments.data.errors import Unauthenticated
from deployments.data.scopes import parse
from tests.serve_app.auth.conftest import Surface, bearer

# Far below the ten seconds for which things are remembered.
SOON_S = 5.0


@pytest.fixture
async def other(surface: Surface) -> AsyncIterator[Authority]:
    """The authority of another replica, which listens."""
    authority = Authority(surface.accounts.tokens, surface.database, demo=False)
    notices = Notices(surface.database.dsn, authority)
    notices.begin()
    try:
        await eventually(lambda: _true(notices.is_listening))
        yield authority
    finally:
        await notices.end()


async def _true(value: bool) -> bool:
    return value


async def eventually(happened: Callable[[], Awaitable[bool]]) -> None:
    deadline = time.monotonic() + SOON_S
    while not await happened():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def refused(authority: Authority, token: str) -> bool:
    try:
        await authority.verify(token)
    except Unauthenticated:
        return True
    return False


async def test_a_sign_out_is_known_everywhere_at_once(surface: Surface, other: Authority) -> None:
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    await other.verify(token)
    await surface.client.post("/v1/auth/logout", headers=bearer(token))
    await eventually(lambda: refused(other, token))


async def test_a_revoked_key_and_a_closed_account_are_known_at_once(
    surface: Surface, other: Authority
) -> None:
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    key = await surface.desk.create_key("robot", parse("ai"), "hospital")
    await other.verify(token)
    await other.verify(key)
    (line,) = await surface.desk.keys()
    await surface.desk.revoke_key(line.id)
    await eventually(lambda: refused(other, key))
    await surface.desk.disable("ana")
    await eventually(lambda: refused(other, token))


async def test_a_lost_connection_is_made_again_and_nothing_missed(
    surface: Surface, other: Authority
) -> None:
    await surface.add("ana")
    token = (await surface.sign_in("ana")).json()["access_token"]
    await other.verify(token)
    async with surface.owner.transaction(deadline=time.monotonic() + 10) as connection:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'medrec-notices' AND datname = current_database()"
        )
        await connection.execute("UPDATE accounts.session SET revoked_at = now()")
    await eventually(lambda: refused(other, token))
