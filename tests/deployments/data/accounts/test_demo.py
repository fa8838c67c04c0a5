"""The demo: everything is made once, kept after that, and refused by every other config."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psycopg
import pytest

from configs.args import RecordsArgs
from deployments.cell.state import CellError, Home
from deployments.data.accounts import demo, passwords, signing
from deployments.data.accounts.authority import Authority
from deployments.data.accounts.tokens import Tokens
from deployments.data.database import Database
from deployments.data.places import Places
from deployments.data.scopes import compartment, permits
from deployments.data.seal.keys import ensure_site_keys

DEMO = RecordsArgs(demo=True)
REAL = RecordsArgs(demo=False)
URL = "http://127.0.0.1:8000"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def credentials(home: Home) -> dict[str, object]:
    file = home.path / "credentials.json"
    assert file.stat().st_mode & 0o777 == 0o600
    found: dict[str, object] = json.loads(file.read_text())
    return found


def test_the_first_start_makes_users_of_every_role_a_key_and_their_file(
    at: Places, home: Home
) -> None:
    demo.at_start(at, DEMO, home, URL)
    made = credentials(home)
    assert list(made) == ["base_url", "api_key", "users"]
    users = made["users"]
    assert isinstance(users, list)
    assert [user["role"] for user in users] == ["physician", "nurse", "analyst", "auditor", "admin"]
    assert all(set(user) == {"username", "password", "role"} for user in users)
    with psycopg.connect(at.owner_dsn) as connection:
        rows = connection.execute(
            "SELECT username, password_hash, practitioner, demo FROM accounts.account"
        ).fetchall()
        held = {row[0] for row in connection.execute("SELECT id FROM records.resource").fetchall()}
        acts = connection.execute("SELECT count(*) FROM audit.entry").fetchone()
    stored = {row[0]: row for row in rows}
    for user in users:
        assert passwords.matches(user["password"], stored[user["username"]][1])
        assert passwords.checked(user["password"], user["username"])
    assert all(row[3] for row in rows)
    linked = {row[2] for row in rows if row[2]}
    assert len(linked) == 2
    assert held == {"hospital", *linked}
    # Five accounts, a key, three resources: each on record.
    assert acts == (9,)


def test_later_starts_keep_what_was_made_and_tell_todays_address(at: Places, home: Home) -> None:
    demo.at_start(at, DEMO, home, URL)
    first = credentials(home)
    demo.at_start(at, DEMO, home, "http://127.0.0.1:9000")
    assert credentials(home) == first | {"base_url": "http://127.0.0.1:9000"}


def test_a_lost_file_means_new_passwords_and_a_new_key(at: Places, home: Home) -> None:
    demo.at_start(at, DEMO, home, URL)
    first = credentials(home)
    (home.path / "credentials.json").unlink()
    demo.at_start(at, DEMO, home, URL)
    second = credentials(home)
    assert second["api_key"] != first["api_key"]
    with psycopg.connect(at.owner_dsn) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM accounts.account), (SELECT count(*) FROM accounts.api_key)"
        ).fetchone()
    assert counts == (5, 1)


def test_every_other_config_refuses_to_start_and_says_what_to_do(at: Places, home: Home) -> None:
    demo.at_start(at, DEMO, home, URL)
    with pytest.raises(CellError) as caught:
        demo.at_start(at, REAL, home, URL)
    said = str(caught.value)
    for words in (
        *("admin, analyst, auditor, nurse, physician", "active demo keys", "signing key"),
        *("site keys", "medrec user disable", "medrec key revoke"),
    ):
        assert words in said
    password = credentials(home)["users"][0]["password"]  # type: ignore[index]
    assert password not in said
    # As it says.
    with psycopg.connect(at.owner_dsn) as connection:
        connection.execute("UPDATE accounts.account SET disabled = true")
        connection.execute("UPDATE accounts.api_key SET revoked_at = now()")
    signing.rotate(at.secrets, own=True)
    (at.secrets / demo.MARK).unlink()
    demo.at_start(at, REAL, home, URL)


def test_a_fresh_installation_that_is_no_demo_gets_nothing_but_the_commands_to_begin_with(
    at: Places, home: Home
) -> None:
    with pytest.raises(CellError, match="medrec key init-signing"):
        demo.at_start(at, REAL, home, URL)
    assert not list(at.secrets.iterdir())
    signing.create(at.secrets, demo=False)
    with pytest.raises(CellError, match="medrec seal init"):
        demo.at_start(at, REAL, home, URL)
    ensure_site_keys(at.secrets)
    demo.at_start(at, REAL, home, URL)
    assert not (home.path / "credentials.json").exists()


async def test_the_demos_key_does_what_a_machine_may(
    at: Places, home: Home, database: Database
) -> None:
    await asyncio.to_thread(demo.at_start, at, DEMO, home, URL)
    tokens = Tokens(signing.SigningKeys(at.secrets), URL, 600)
    text = str(credentials(home)["api_key"])
    who = await Authority(tokens, database, demo=True).verify(text)
    assert permits(who, "Patient", "c")
    assert not permits(who, "AuditEvent", "r")
    assert compartment(who) == "all"
    assert {"ai", "ai:decide", "ai:emergency"} <= who.scopes
