"""Proves `medrec seal` from the first key to the rebuilt one, each act on record."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.data.seal import keys
from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.sealer import Sealer
from serve_app.cli.seal import app
from tests.conftest import LOCAL
from tests.deployments.data.seal.sealed_rows import PER_NUMBER, add, opened, rows


@dataclass
class Terminal:
    """An operator before a database and a secrets folder."""

    config: Path
    home: Path
    owner: psycopg.Connection[Any]

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--config", str(self.config)])

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def refusal(self, *words: str) -> str:
        done = self.run(*words)
        assert isinstance(done.exception, SiteKeysError), done.output
        return str(done.exception)

    def acts(self) -> list[dict[str, Any]]:
        """Details of the acts of sealing in the chain."""
        entries = self.owner.execute("SELECT body FROM audit.entry ORDER BY seq").fetchall()
        bodies = [orjson.loads(body) for (body,) in entries]
        return [body["details"] for body in bodies if body["action"] == "seal"]


@pytest.fixture
def terminal(
    dsns: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("MEDREC_HOME", str(home))
    monkeypatch.setattr("deployments.data.seal.rotate._settle", lambda *_: None)
    site = yaml.safe_load(LOCAL.read_text())
    for application in site["applications"]:
        if application["name"] != "ai":
            kept = application["args"].setdefault("records", {})
            application["args"]["records"] = {**kept, "dsn": dsns[0], "owner_dsn": dsns[1]}
    config = tmp_path / "site.yaml"
    config.write_text(yaml.safe_dump(site))
    with psycopg.connect(dsns[1], autocommit=True) as owner:
        yield Terminal(config, home, owner)


def test_from_the_first_key_to_the_rebuilt_one(terminal: Terminal, tmp_path: Path) -> None:
    assert "medrec seal init" in terminal.refusal("rotate")
    said = terminal.said("init")
    first = keys.read(terminal.secrets).current
    assert first in said
    assert "already" in terminal.refusal("init")
    add(terminal.owner, Sealer.load(terminal.secrets), 1)

    out = tmp_path / "shares"
    said = terminal.said("escrow", "--holders", "3", "--threshold", "2", "--out", str(out))
    shares = sorted(out.glob("share-*.txt"))
    assert [path.name for path in shares] == [f"share-{n}-of-3.txt" for n in (1, 2, 3)]
    for path in (*shares, out / keys.BUNDLE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_text().split("\n")[-2] not in said
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert "not empty" in terminal.refusal("escrow", "--out", str(out))

    said = terminal.said("rotate")
    second = keys.read(terminal.secrets).current
    assert f"{PER_NUMBER} keys re-wrapped; the current site key is {second}" in said
    add(terminal.owner, Sealer.load(terminal.secrets), 2)
    texts = opened(rows(terminal.owner), Sealer.load(terminal.secrets))
    assert "there are site keys" in terminal.refusal("recover", "--share", str(shares[0]))

    for path in terminal.secrets.iterdir():
        path.unlink()
    lost = terminal.run("check")
    assert lost.exit_code == 1
    assert "medrec seal recover" in lost.output
    assert "too few" in terminal.refusal("recover", "--share", str(shares[0]))
    assert not keys.path_of(terminal.secrets).exists()
    # The bundle of the first day is older than the key; the database's is not.
    two = ("--share", str(shares[2]), "--share", str(shares[0]))
    terminal.said("recover", *two)
    assert keys.read(terminal.secrets).current == second
    assert opened(rows(terminal.owner), Sealer.load(terminal.secrets)) == texts
    assert "warning" not in terminal.said("check")

    # Without a database init and recover wait in the journal, so their place is not fixed.
    acts = ["escrow", "init", *["recover"] * 3, *["rotate"] * 4]
    assert sorted(each["act"] for each in terminal.acts()) == acts
    *refused, begun, ended = [each for each in terminal.acts() if each["act"] == "rotate"]
    assert [each["step"] for each in (*refused, begun)] == ["begin", "end", "begin"]
    assert (ended["from"], ended["to"], ended["rewrapped"]) == (first, second, PER_NUMBER)
    assert ended["dropped"] == [first]


def test_an_old_bundle_is_told_by_check_and_renewed_on_demand(
    terminal: Terminal, tmp_path: Path
) -> None:
    terminal.said("init")
    assert "there is no escrow to renew" in terminal.refusal("escrow", "--renew")
    assert "there is no escrow" in terminal.said("check")
    terminal.said("escrow", "--out", str(tmp_path / "shares"))
    keys.write(terminal.secrets, keys.read(terminal.secrets).with_new_current())
    said = terminal.said("check")
    assert "is older than site key" in said
    assert "is not finished" in said
    terminal.said("escrow", "--renew")
    assert "is older than" not in terminal.said("check")


def test_a_rotation_with_a_broken_row_fails_keeps_the_old_key_and_is_on_record(
    terminal: Terminal,
) -> None:
    terminal.said("init")
    add(terminal.owner, Sealer.load(terminal.secrets), 1)
    terminal.owner.execute("UPDATE records.break_glass SET wrapped_key = '\\x00'")
    assert "1 rows do not open" in terminal.refusal("rotate")
    assert len(keys.read(terminal.secrets).keys) == 2
    assert terminal.acts()[-1]["broken"] == 1
    assert terminal.run("check").exit_code == 1


def test_nothing_is_rotated_that_cannot_be_put_on_record(terminal: Terminal) -> None:
    terminal.said("init")
    before = keys.read(terminal.secrets)
    terminal.owner.execute(
        f"REVOKE CONNECT ON DATABASE {terminal.owner.info.dbname} FROM medrec_app".encode()
    )
    done = terminal.run("rotate")
    assert done.exit_code != 0
    assert keys.read(terminal.secrets) == before


def test_no_secret_is_ever_printed(terminal: Terminal, tmp_path: Path) -> None:
    said = terminal.said("init") + terminal.said("escrow", "--out", str(tmp_path / "shares"))
    said += terminal.said("rotate", "--keep-old") + terminal.said("check")
    raw = json.loads(keys.path_of(terminal.secrets).read_bytes())
    for secret in (raw["index"], *(each["key"] for each in raw["keys"].values())):
        assert secret not in said
