"""Two cells of one site with certificates and keys of their own, and a host of another site."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from deployments.data.accounts import signing
from deployments.data.seal import keys
from deployments.site.trust.files import HostFiles, read_certificate
from deployments.site.trust.renewal import ensure_site, host_files


@dataclass(frozen=True)
class Cell:
    """A host's certificates and its secrets folder."""

    files: HostFiles
    secrets: Path

    @property
    def certificate(self) -> x509.Certificate:
        return read_certificate(self.files.certificate)

    def file(self, name: str) -> bytes:
        return (self.secrets / name).read_bytes()


@dataclass(frozen=True)
class Cells:
    """`a` has keys, `b` has none, `stranger` is of another authority."""

    ca: Path
    a: Cell
    b: Cell
    stranger: Cell


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    ensure_site(tmp_path / "ca", {"mac-a": [], "mac-b": [], "cloud": []}, [])
    ensure_site(tmp_path / "other", {"mac-a": []}, [])

    def cell(ca: str, host: str, folder: str) -> Cell:
        secrets = tmp_path / folder
        secrets.mkdir(mode=0o700)
        return Cell(host_files(tmp_path / ca, host), secrets)

    found = Cells(
        tmp_path / "ca",
        cell("ca", "mac-a", "a"),
        cell("ca", "mac-b", "b"),
        cell("other", "mac-a", "stranger"),
    )
    for having in (found.a, found.stranger):
        keys.create(having.secrets)
        signing.create(having.secrets, demo=False)
    return found
