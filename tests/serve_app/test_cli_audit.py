"""`medrec audit`: says whether the chain is whole, signs its head, exports it; on record itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import psycopg
import pytest
from fhir.resources.R4B.auditevent import AuditEvent
from typer.testing import CliRunner, Result

from deployments.cell.state import CellError
from deployments.data.audit.chain import Audit
from deployments.data.database import Database
from serve_app.cli import app
from tests.conftest import LOCAL, medrec
from tests.deployments.data.audit.acts import entry, soon


class Cli:
    """The command line on a config that names a test's database."""

    def __init__(self, dsns: tuple[str, str], folder: Path) -> None:
        self._home = folder / "home"
        self._config = folder / "site.yaml"
        text = LOCAL.read_text()
        assert "demo: true" in text
        dsn, owner_dsn = (json.dumps(dsn) for dsn in dsns)
        lines = f"demo: true\n        dsn: {dsn}\n        owner_dsn: {owner_dsn}"
        self._config.write_text(text.replace("demo: true", lines))
        self.key = self._home / "secrets" / "anchor_key.pem"

    def __call__(self, command: str, *arguments: str) -> Result:
        """Run it in this process, which is faster; an error that it would print is raised."""
        done = CliRunner().invoke(
            app,
            ["audit", command, "--config", str(self._config), *arguments],
            env={"MEDREC_HOME": str(self._home)},
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    def process(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it as people do."""
        return medrec("audit", command, "--config", str(self._config), *arguments, home=self._home)


@pytest.fixture
async def cli(database: Database, dsns: tuple[str, str], tmp_path: Path) -> Cli:
    """The command line on a chain of five entries."""
    audit = Audit(database, tmp_path / "journal")
    await audit.start()
    for number in range(5):
        await audit.record(entry(number), deadline=soon())
    await audit.close()
    return Cli(dsns, tmp_path)


def actions(owner_dsn: str) -> list[tuple[str, str]]:
    with psycopg.connect(owner_dsn) as owner:
        return owner.execute(
            "SELECT action, outcome FROM audit.entry WHERE seq > 5 ORDER BY seq"
        ).fetchall()


def test_a_whole_chain_is_said_to_be_whole(cli: Cli, dsns: tuple[str, str]) -> None:
    done = cli.process("verify")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the chain is whole (5 entries from 1, head 5 ")
    assert actions(dsns[1]) == [("audit-verify", "success")]
    told = json.loads(cli("verify", "--json", "--from", "3").stdout)
    assert (told["sound"], told["first"], told["checked"], told["faults"]) == (True, 3, 4, [])
    assert told["head"]["seq"] == 6


def test_a_broken_chain_is_said_to_be_broken_where_it_is(cli: Cli, dsns: tuple[str, str]) -> None:
    with psycopg.connect(dsns[1]) as owner:
        owner.execute("ALTER TABLE audit.entry DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM audit.entry WHERE seq = 3")
    done = cli("verify")
    assert done.exit_code == 1
    assert "entry 3: missing: entry 3 was removed" in done.stdout
    assert "THE CHAIN IS BROKEN" in done.stdout
    assert actions(dsns[1]) == [("audit-verify", "failed")]
    told = json.loads(cli("verify", "--json").stdout)
    assert told["faults"] == [{"seq": 3, "what": "missing", "detail": "entry 3 was removed"}]


def test_an_anchor_is_kept_elsewhere_and_holds_the_chain_to_it(
    cli: Cli, dsns: tuple[str, str], tmp_path: Path
) -> None:
    kept, public = tmp_path / "anchors.ndjson", tmp_path / "public.pem"
    public.write_text(cli("anchor", "--public-key").stdout)
    for _ in range(2):
        done = cli("anchor", "--out", str(kept))
        assert (done.exit_code, done.stderr) == (0, "")
    assert cli.key.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["seq"] for line in kept.read_text().splitlines()] == [6, 7]
    done = cli("verify", "--anchor", str(kept), "--public-key", str(public))
    assert (done.exit_code, "2 anchors passed" in done.stdout) == (0, True)
    assert cli("verify", "--anchor", str(kept)).exit_code == 0
    with psycopg.connect(dsns[1]) as owner:
        for table in ("entry", "head"):
            owner.execute(f"ALTER TABLE audit.{table} DISABLE TRIGGER ALL")
        owner.execute("DELETE FROM audit.entry WHERE seq > 5")
        owner.execute(
            "UPDATE audit.head SET (seq, hash) = (SELECT seq, hash FROM audit.entry WHERE seq = 5)"
        )
    done = cli("verify", "--anchor", str(kept))
    assert done.exit_code == 1
    assert "entry 6: anchor: " in done.stdout
    kept.write_text(kept.read_text().replace('"seq":7', '"seq":8'))
    with pytest.raises(CellError, match="line 2 of the anchors is not signed by this key"):
        cli("verify", "--anchor", str(kept))


def test_an_export_is_audit_events_of_the_organisation_and_on_record(
    cli: Cli, dsns: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "audit.ndjson"
    done = cli("export", "--out", str(out), "--from", "2020-01-01")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = out.read_text().splitlines()
    # What the export itself put on record is part of it.
    assert done.stdout.strip() == f"{len(lines)} AuditEvents in {out}"
    events = [json.loads(line) for line in lines]
    for event in events:
        AuditEvent.model_validate(event)
    assert [event["action"] for event in events] == ["R"] * 6
    assert out.stat().st_mode & 0o777 == 0o600
    assert actions(dsns[1]) == [("audit-read", "success")]
    with pytest.raises(CellError, match="File exists"):
        cli("export", "--out", str(out))
    none = cli("export", "--out", str(tmp_path / "none"), "--to", "2020-01-01")
    assert none.stdout.startswith("0 AuditEvents")


def test_without_a_database_the_command_says_so(tmp_path: Path) -> None:
    nowhere = f"host={tmp_path} dbname=medrec user=medrec_owner"
    for command in ("verify", "anchor"):
        done = Cli((nowhere, nowhere), tmp_path).process(command)
        assert done.returncode == 1
        assert done.stderr.startswith("medrec: the ")
        assert "Traceback" not in done.stderr
