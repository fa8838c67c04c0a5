"""Operators' acts: made as the owner, on record, and impossible for the application's role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from deployments.data.accounts.administration import Administration, NewUser, administration
from deployments.data.errors import Conflict, Invalid, NotFound
from deployments.data.places import Places
from deployments.data.scopes import parse

ANA = NewUser("Ana", "physician", "hospital", "correct horse battery staple", "practitioner")


@pytest.fixture
async def desk(at: Places) -> AsyncIterator[Administration]:
    async with administration(at, "hospital") as found:
        yield found


async def test_every_act_is_in_the_chain_when_it_returns(desk: Administration, at: Places) -> None:
    account = await desk.add_user(ANA)
    await desk.set_password("ana", "another correct horse battery")
    await desk.disable("ANA")
    text = await desk.create_key("robot", parse("ai"), "hospital")
    (line,) = await desk.keys()
    await desk.revoke_key(line.id)
    with psycopg.connect(at.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT body::jsonb ->> 'action', body::jsonb ->> 'resource',"
            " body::jsonb #>> '{details,change}', body FROM audit.entry ORDER BY seq"
        ).fetchall()
    assert [row[:3] for row in rows[:3]] == [
        ("account-change", f"Account/{account}", change)
        for change in ("created", "password-set", "disabled")
    ]
    assert [row[2] for row in rows[3:]] == ["created", "revoked"]
    assert not any(text in row[3] or "correct horse" in row[3] for row in rows)


async def test_a_name_is_one_persons_whatever_its_case(desk: Administration) -> None:
    await desk.add_user(ANA)
    with pytest.raises(Conflict):
        await desk.add_user(replace(ANA, username="aNA"))
    (line,) = await desk.users()
    assert (line.username, line.role, line.practitioner) == ("Ana", "physician", "practitioner")


@pytest.mark.parametrize(
    "change",
    [
        {"role": "service"},
        {"role": "root"},
        {"practitioner": None},
        {"practitioner": "a/b"},
        {"password": None},
        {"password": "short"},
        {"username": ""},
        {"username": "ana\n"},
        {"username": " ana"},
        {"username": "x" * 129},
        {"organization": "a b"},
        {"openid_sub": ""},
    ],
)
async def test_what_is_no_account_is_not_made(desk: Administration, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        await desk.add_user(replace(ANA, **change))
    assert await desk.users() == []


async def test_who_is_not_there_cannot_be_changed(desk: Administration) -> None:
    with pytest.raises(NotFound):
        await desk.disable("nobody")
    with pytest.raises(NotFound):
        await desk.revoke_key("abcdefghijkl")
    with pytest.raises(Invalid, match="system/"):
        await desk.create_key("x", parse("user/Patient.rs"), "hospital")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO accounts.account (id, organization, username, role, created_by)"
        " VALUES (gen_random_uuid(), 'hospital', 'x', 'admin', 'x')",
        "UPDATE accounts.account SET role = 'admin'",
        "UPDATE accounts.account SET disabled = false",
        "DELETE FROM accounts.account",
        "INSERT INTO accounts.api_key (id, uuid, hash, name, organization, scopes, created_by)"
        " VALUES ('aaaaaaaaaaaa', gen_random_uuid(), sha256('x'), 'x', 'h', 'ai', 'x')",
        "UPDATE accounts.api_key SET scopes = 'system/*.cruds'",
        "UPDATE accounts.api_key SET revoked_at = NULL",
        "UPDATE accounts.session SET ends_at = now() + interval '1 year'",
        "DELETE FROM accounts.session",
        "DELETE FROM accounts.refresh_token",
        "UPDATE accounts.refresh_token SET hash = sha256('x')",
        "UPDATE accounts.passkey SET public_key = 'x'",
        "CREATE TABLE accounts.mine ()",
    ],
)
def test_the_applications_role_makes_nobody_and_lengthens_nothing(
    at: Places, statement: str
) -> None:
    with (
        psycopg.connect(at.dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)
