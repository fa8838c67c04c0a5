"""`medrec ai` and `medrec subject` as an operator runs them, on a real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from deployments.cell.state import HOME_VARIABLE
from deployments.data.seal import keys
from serve_app.cli import app
from tests.conftest import LOCAL
from tests.deployments.data.records.conftest import Owner


@pytest.fixture
def config(dsns: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """local.yaml over the test's own database, with a home of its own."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    keys.create(tmp_path / "home" / "secrets")
    site = yaml.safe_load(LOCAL.read_text(encoding="utf-8"))
    for application in site["applications"]:
        if application["name"] in ("api", "data"):
            records = application["args"].setdefault("records", {})
            records |= {"dsn": dsns[0], "owner_dsn": dsns[1]}
    path = tmp_path / "site.yaml"
    path.write_text(yaml.safe_dump(site), encoding="utf-8")
    return path


def medrec(*arguments: str, config: Path) -> Result:
    return CliRunner().invoke(app, [*arguments, "--config", str(config)])


def test_ai_is_switched_off_and_on_by_a_word_on_record(config: Path, dsns: tuple[str, str]) -> None:
    off = medrec("ai", "off", "--capability", "chat", "--reason", "drift", config=config)
    shown = medrec("ai", "status", config=config)
    on = medrec("ai", "on", "--capability", "chat", config=config)
    assert (off.exit_code, shown.exit_code, on.exit_code) == (0, 0, 0), off.output
    assert "chat     OFF  drift" in shown.output
    assert "site     on" in shown.output
    told = [entry["details"] for entry in Owner(dsns[1]).entries("ai-switch")]
    assert [(each["capability"], each["enabled"]) for each in told] == [
        ("chat", False),
        ("chat", True),
    ]


def test_a_switch_that_does_not_exist_is_refused(config: Path) -> None:
    refused = medrec("ai", "off", "--capability", "vision", config=config)
    assert refused.exit_code != 0


def test_an_erasure_reports_every_category_for_programs(config: Path) -> None:
    done = medrec("subject", "erase", "--patient", "nobody", "--json", config=config)
    assert done.exit_code == 0, done.output
    report = json.loads(done.output)
    assert report["patient"] == "nobody"
    assert {"chat", "audio", "face_template", "resources", "audit"} <= {
        line["category"] for line in report["categories"]
    }


def test_a_record_is_not_deleted_without_a_yes(config: Path, dsns: tuple[str, str]) -> None:
    asked = CliRunner().invoke(
        app,
        ["subject", "erase", "--patient", "x", "--after-retention", "--config", str(config)],
        input="n\n",
    )
    assert asked.exit_code != 0
    assert Owner(dsns[1]).entries("erase") == []


def test_nobody_is_exported_and_no_folder_made_for_an_unknown_patient(
    config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = medrec("subject", "export", "--patient", "nobody", "--out", str(out), config=config)
    assert done.exit_code != 0
    assert not out.exists()
    due = medrec("subject", "due", config=config)
    assert (due.exit_code, due.output) == (0, "")
