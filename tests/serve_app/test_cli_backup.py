"""`medrec backup`: from setting it up to a restored home, as an operator types it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.cell import condition, state, store
from deployments.data import postgres
from deployments.data.backup import keys, settings
from deployments.data.backup.errors import BackupError
from deployments.data.migrate import migrate
from deployments.data.seal import escrow
from deployments.data.seal import keys as site_keys
from serve_app.cli import app
from tests.conftest import LOCAL, memory_folder
from tests.deployments.data.backup.world import World


class Terminal:
    """An operator at a cell's home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, state.Home(folder / "home")
        self.home.prepare()
        site = yaml.safe_load(LOCAL.read_text())
        self.config = folder / "cell.yaml"
        self.config.write_text(yaml.safe_dump(site))

    def run(self, *words: str) -> Result:
        done = CliRunner().invoke(app, ["backup", *words], env={"MEDREC_HOME": str(self.home.path)})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def said(self, *words: str) -> str:
        done = self.run(*words)
        assert done.exit_code == 0, done.output
        return done.stdout

    def set_up(self, to: str) -> str:
        return self.said("init", "--to", to, "--site", "here", "--config", str(self.config))


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with tempfile.TemporaryDirectory(prefix="medrec-c-", dir=memory_folder()) as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        yield Terminal(folder)


def test_from_init_to_a_restored_home(terminal: Terminal) -> None:
    home = terminal.home
    said = terminal.set_up(str(terminal.folder / "backups"))
    assert "says where backups go" in said
    secrets = home.path / "secrets"
    key = (secrets / keys.FILE).read_text()
    assert json.loads(key)["private"] not in said
    with pytest.raises(BackupError, match="set up already"):
        terminal.set_up(str(terminal.folder / "other"))
    loaded = site_keys.create(secrets)
    bundle, shares = escrow.establish(loaded, holders=3, threshold=2)
    (secrets / site_keys.BUNDLE).write_bytes(bundle.dump())

    # The cell's own PostgreSQL archives because the home's backup.json is there.

    process = store.start(home, lambda text: None)
    server = postgres.local(home)
    site = World(terminal.folder, settings.read(home.path / settings.FILE), server, process)
    try:
        server.wait_ready(process)
        migrate(server.dsn(postgres.OWNER))
        assert json.loads(terminal.said("list", "--json")) == []
        made = json.loads(terminal.said("run", "--json"))
        site.write("kept")
        at = site.now()
        site.write("not wanted")
        site.archive()
    finally:
        site.stop()
    (row,) = json.loads(terminal.said("list", "--json"))
    assert (row["id"], row["missing"]) == (made["id"], None)

    verdict = json.loads(terminal.said("verify", "--json"))
    assert (verdict["sound"], verdict["faults"]) == (True, [])
    assert 0 < verdict["restore_s"] < verdict["limit_s"] == 7200
    assert json.loads((home.run / "backup_verdict.json").read_text())["base"] == made["id"]
    assert condition.read(home)["backup_verify"]["ok"]
    assert not list(home.path.glob("backup-verify-*"))

    # A bare machine: four settings, and the key from two of three holders.
    bare = terminal.folder / "bare"
    bare.mkdir(mode=0o711)
    there = replace(site.settings, secrets=str(bare / "secrets"))
    (bare / "backup.json").write_text(
        json.dumps({name: getattr(there, name) for name in ("to", "site", "secrets")})
    )
    chosen = ("--settings", str(bare / "backup.json"))
    with pytest.raises(BackupError, match="medrec backup recover"):
        terminal.run("list", *chosen)
    words = []
    for share in shares[1:]:
        path = bare / f"share-{share.number}"
        path.write_text(share.text())
        words += ["--share", str(path)]
    terminal.said("recover", *chosen, *words)
    assert (bare / "secrets" / keys.FILE).read_text() == key
    new = bare / "home"
    moment = at.isoformat()
    told = json.loads(terminal.said("restore", *chosen, "--to", str(new), "--at", moment, "--json"))
    assert told["asked"] == moment
    assert told["reached"] <= moment
    assert site_keys.read(new / "secrets") == loaded
    state.Home(new).prepare()
    again = postgres.local(state.Home(new))
    process = store.start(state.Home(new), lambda text: None)
    site = World(bare, there, again, process)
    try:
        again.wait_ready(process)
        assert site.execute("SELECT text FROM public.note") == [("kept",)]
    finally:
        site.stop()


def test_what_cannot_be_is_told_plainly(terminal: Terminal) -> None:
    with pytest.raises(BackupError, match="medrec backup init"):
        terminal.run("run")
    with pytest.raises(BackupError, match="to: String should match"):
        terminal.set_up("ftp://x")
    assert terminal.run("restore", "--to", str(terminal.folder / "x")).exit_code == 2
    terminal.set_up(str(terminal.folder / "backups"))
    with pytest.raises(BackupError, match="the database cannot be reached"):
        terminal.run("run")
    with pytest.raises(BackupError, match="there is no complete base backup"):
        terminal.run("restore", "--latest", "--to", str(terminal.folder / "x"))
    verdict = terminal.run("verify", "--json")
    assert verdict.exit_code == 1
    assert json.loads(verdict.stdout)["faults"] == ["there is no complete base backup"]
