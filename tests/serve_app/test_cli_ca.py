"""Proves `medrec ca` from the first certificate to a revoked one."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import read_certificate
from deployments.site.trust.renewal import host_files
from serve_app.cli.ca import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDREC_HOME", str(tmp_path))
    return tmp_path / "ca"


def said(*words: str) -> str:
    done = CliRunner().invoke(app, [*words])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refusal(*words: str) -> str:
    done = CliRunner().invoke(app, [*words])
    assert isinstance(done.exception, TrustError), done.output
    return str(done.exception)


def test_from_the_authority_to_a_revoked_device(folder: Path) -> None:
    assert "medrec ca init" in refusal("host", "mac-a")
    assert "good until" in said("init", "--name", "test")
    assert "already" in refusal("init")
    assert "hosts/mac-a" in said("host", "mac-a", "--address", "10.0.0.1", "--dns", "mac-a.local")
    assert "copy" in said("edge", "--dns", "medrec.hospital.example")
    assert "shown this once" in said("device", "--user", "ana.souza")
    lines = [line.split("\t") for line in said("list").splitlines()]
    assert [line[:3] for line in lines] == [
        ["host", "mac-a", "valid"],
        ["edge", "edge", "valid"],
        ["device", "ana.souza", "valid"],
    ]
    assert lines[0][5] == "mac-a mac-a.local 10.0.0.1"
    assert "revoked 1 of device ana.souza" in said("revoke", "ana.souza", "--device")
    assert said("list").splitlines()[2].split("\t")[2] == "revoked"
    assert "no certificate of host" in refusal("revoke", "mac-b")


def test_renewing_makes_new_files_only_when_they_end_soon(folder: Path) -> None:
    said("init")
    said("host", "mac-a")
    first = read_certificate(host_files(folder, "mac-a").certificate).serial_number
    assert said("renew") == "0 renewed\n"
    assert "renewed host mac-a: it ends on" in said("renew", "--within-days", "397")
    assert read_certificate(host_files(folder, "mac-a").certificate).serial_number != first


def test_an_edge_without_a_name_is_refused(folder: Path) -> None:
    said("init")
    done = CliRunner().invoke(app, ["edge"])
    assert done.exit_code == 2
    assert "name what clients connect to" in done.output
