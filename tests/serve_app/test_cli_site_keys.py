"""Proves `medrec site keys` from one host's file to another host's keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cell.state import CellError
from deployments.data.accounts import signing
from deployments.data.seal import keys
from deployments.site.trust.key_files import held
from deployments.site.trust.renewal import ensure_site, host_files
from serve_app.cli.site_keys import keys_app


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    ensure_site(tmp_path / "ca", {"mac-a": [], "mac-b": []}, [])
    for host in ("mac-a", "mac-b"):
        host_files(tmp_path / "ca", host).copy_to(tmp_path / host / "site" / "tls")
        (tmp_path / host / "secrets").mkdir(mode=0o700)
    keys.create(tmp_path / "mac-a" / "secrets")
    signing.create(tmp_path / "mac-a" / "secrets", demo=False)
    return tmp_path / "ca"


@pytest.fixture
def on(tmp_path: Path, ca: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


class Host:
    """The terminal of one host after another."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder, self._patch = folder, patch

    def said(self, host: str, *words: str) -> str:
        self._patch.setenv("MEDREC_HOME", str(self.folder / host))
        done = CliRunner().invoke(keys_app, [*words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output

    def refusal(self, host: str, *words: str) -> str:
        self._patch.setenv("MEDREC_HOME", str(self.folder / host))
        done = CliRunner().invoke(keys_app, [*words])
        assert isinstance(done.exception, CellError), done.output
        return str(done.exception)


def test_a_file_carries_the_keys_to_the_host_that_it_is_for(on: Host, ca: Path) -> None:
    file, certificate = on.folder / "keys.json", host_files(ca, "mac-b").certificate
    words = ("export", "--for", "mac-b", "--out", str(file), "--certificate", str(certificate))
    assert "sealed to mac-b" in on.said("mac-a", *words)
    assert file.stat().st_mode & 0o077 == 0
    assert "sealed to mac-b, and not to" in on.refusal("mac-a", "import", str(file))
    said = on.said("mac-b", "import", str(file))
    ours = held(on.folder / "mac-a" / "secrets")
    assert said.startswith(f"from mac-a; the current site key is {ours.current}\n")
    assert f"new signing key: {ours.signing[0]}" in said
    assert held(on.folder / "mac-b" / "secrets") == ours
    assert "everything was here already" in on.said("mac-b", "import", str(file))
    assert on.said("mac-a", "list") == on.said("mac-b", "list")


def test_what_is_wrong_is_told_in_a_sentence(on: Host, ca: Path) -> None:
    file, certificate = on.folder / "keys.json", host_files(ca, "mac-a").certificate
    words = ("export", "--for", "mac-b", "--out", str(file), "--certificate", str(certificate))
    assert "is the certificate of mac-a, not of mac-b" in on.refusal("mac-a", *words)
    assert "cannot be read" in on.refusal("mac-a", *words[:5])
    assert "cannot be read" in on.refusal("mac-b", "import", str(file))
    assert "of no site" in on.refusal("mac-a", "send")
