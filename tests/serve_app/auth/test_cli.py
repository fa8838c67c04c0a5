"""`medrec user` and `medrec key`, as an operator types them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from configs.reader import PROJECT_ROOT
from deployments.cell.state import CellError
from deployments.data.accounts import keys, passwords
from serve_app.cli import app

PASSWORD = "correct horse battery staple"


@pytest.fixture
def config(dsns: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """local.yaml with this test's database and secrets."""
    monkeypatch.setenv("MEDREC_HOME", str(tmp_path / "home"))
    site = yaml.safe_load((PROJECT_ROOT / "configs" / "local.yaml").read_text())
    for entry in site["applications"]:
        if entry["name"] in ("api", "data"):
            records = entry["args"].setdefault("records", {})
            records |= {"dsn": dsns[0], "owner_dsn": dsns[1], "demo": False}
            records |= {"secrets": str(tmp_path / "secrets")}
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(site))
    return file


def medrec(config: Path, *words: str, typed: str = "") -> str:
    """What the command prints. A refusal is raised, as `main` would print it."""
    done = CliRunner().invoke(
        app, [*words, "--config", str(config)], input=typed, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_a_person_is_added_listed_given_another_password_and_disabled(
    config: Path, dsns: tuple[str, str]
) -> None:
    person = ("user", "add", "ana", "--role", "physician", "--practitioner", "p1")
    assert "ana can sign in" in medrec(config, *person, "--password-stdin", typed=PASSWORD + "\n")
    assert PASSWORD not in medrec(config, "user", "list")
    printed = medrec(config, "user", "set-password", "ana", "--generate")
    made = printed.split("password: ")[1].strip()
    with psycopg.connect(dsns[1]) as connection:
        row = connection.execute("SELECT password_hash FROM accounts.account").fetchone()
    assert row is not None
    assert passwords.matches(made, row[0])
    medrec(config, "user", "disable", "ana")
    assert "disabled" in medrec(config, "user", "list")
    medrec(config, "user", "enable", "ana")
    assert "disabled" not in medrec(config, "user", "list")


def test_a_key_is_printed_once_listed_without_its_secret_and_revoked(config: Path) -> None:
    words = ("key", "create", "--name", "robot", "--scopes", "system/Observation.rs ai")
    text = medrec(config, *words, "--expires-days", "30").strip()
    assert keys.is_well_formed(text)
    listed = medrec(config, "key", "list")
    key = text.split("_")[1]
    assert listed.startswith(f"{key}\trobot\thospital\tactive\tlast used never\toperator:")
    assert text not in listed
    medrec(config, "key", "revoke", key)
    assert "revoked" in medrec(config, "key", "list")
    with pytest.raises(CellError, match="no active key"):
        medrec(config, "key", "revoke", key)


@pytest.mark.parametrize("scopes", ["", "root", "user/Patient.rs"])
def test_a_key_for_nothing_is_refused_in_words(config: Path, scopes: str) -> None:
    with pytest.raises(CellError):
        medrec(config, "key", "create", "--name", "x", "--scopes", scopes)


def test_a_wrong_role_or_weak_password_is_refused_in_words(config: Path) -> None:
    with pytest.raises(CellError, match="a role is one of"):
        medrec(config, "user", "add", "x", "--role", "root", "--generate")
    with pytest.raises(CellError, match="15 to 256"):
        medrec(config, "user", "add", "x", "--role", "admin", "--password-stdin", typed="short\n")


def test_the_signing_key_is_made_once_and_rotated(config: Path, tmp_path: Path) -> None:
    medrec(config, "key", "init-signing")
    with pytest.raises(CellError, match="rotate-signing"):
        medrec(config, "key", "init-signing")
    began = time.time()
    kid = medrec(config, "key", "rotate-signing").split()[0]
    held = json.loads((tmp_path / "secrets" / "signing_keys.json").read_text())["keys"]
    assert [entry["kid"] for entry in held if entry["created"] >= began] == [kid]
    assert len(held) == 2
