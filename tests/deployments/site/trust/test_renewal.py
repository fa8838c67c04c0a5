"""Proves that a site's certificates are made once, renewed in time, and never taken from others."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.site.trust import authority as authorities
from deployments.site.trust.authority import Authority, devices_folder
from deployments.site.trust.certificates import names_of
from deployments.site.trust.files import belong_together, read_certificate
from deployments.site.trust.renewal import (
    certificate_ends,
    edge_files,
    ensure_site,
    expiries,
    host_files,
    renew,
    why_anew,
)
from tests.deployments.site.trust.clock import Clock

HOSTS = {"mac-a": ["10.77.0.11"], "edge-1": ["10.77.0.21", "10.77.0.10"]}
PUBLIC = ["medrec.localhost", "10.77.0.10"]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> Path:
    ensure_site(tmp_path / "ca", HOSTS, PUBLIC, clock=clock)
    return tmp_path / "ca"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_a_site_needs_is_made_at_once(folder: Path) -> None:
    for host, addresses in HOSTS.items():
        files = host_files(folder, host)
        assert names_of(read_certificate(files.certificate)) == (host, *addresses)
        assert belong_together(files)
        assert all(path.exists() for path in files.paths)
    assert names_of(read_certificate(edge_files(folder).certificate)) == tuple(PUBLIC)


def test_a_second_time_changes_nothing(folder: Path, clock: Clock) -> None:
    before = contents(folder)
    clock.pass_days(300)
    ensure_site(folder, HOSTS, PUBLIC, clock=clock)
    assert contents(folder) == before


def test_what_ends_within_thirty_days_is_made_anew_with_another_key(
    folder: Path, clock: Clock
) -> None:
    files = host_files(folder, "mac-a")
    key, authority = files.key.read_bytes(), (folder / "ca.crt").read_bytes()
    clock.pass_days(368)
    ensure_site(folder, HOSTS, PUBLIC, clock=clock)
    assert files.key.read_bytes() != key
    assert (folder / "ca.crt").read_bytes() == authority
    assert read_certificate(files.certificate).not_valid_after_utc > clock.now
    assert expiries([files.crl])[files.crl] > clock.now.timestamp() + 300 * 86400


def test_another_address_makes_that_one_certificate_anew(folder: Path, clock: Clock) -> None:
    edge = edge_files(folder).certificate.read_bytes()
    ensure_site(folder, {**HOSTS, "mac-a": ["10.77.0.99"]}, PUBLIC, clock=clock)
    found = read_certificate(host_files(folder, "mac-a").certificate)
    assert names_of(found) == ("mac-a", "10.77.0.99")
    assert edge_files(folder).certificate.read_bytes() == edge


def test_what_was_cut_off_between_key_and_certificate_is_made_anew(
    folder: Path, clock: Clock
) -> None:
    files = host_files(folder, "mac-a")
    files.key.write_bytes(host_files(folder, "edge-1").key.read_bytes())
    made = Authority(folder, clock=clock)
    reason = why_anew(made, files, ("mac-a", *HOSTS["mac-a"]))
    assert reason == "certificate, key and bundle do not belong together"
    ensure_site(folder, HOSTS, PUBLIC, clock=clock)
    assert belong_together(files)


def test_a_revoked_certificate_is_made_anew(folder: Path, clock: Clock) -> None:
    made = Authority(folder, clock=clock)
    made.revoke("host", "mac-a")
    reason = why_anew(made, host_files(folder, "mac-a"), ("mac-a", *HOSTS["mac-a"]))
    assert reason == "it is revoked"


def test_the_hospitals_own_certificate_is_left_alone(
    folder: Path, tmp_path: Path, clock: Clock
) -> None:
    other = authorities.create(tmp_path / "other", "real")
    other.issue("edge", "edge", ["real.hospital.example"]).copy_to(folder / "edge")
    theirs = [path for path in edge_files(folder).paths if path.name.startswith("edge.")]
    before = [path.read_bytes() for path in theirs]
    clock.pass_days(390)
    ensure_site(folder, HOSTS, PUBLIC, clock=clock)
    renew(Authority(folder, clock=clock))
    assert [path.read_bytes() for path in theirs] == before


def test_renewing_tells_what_and_why_and_leaves_devices(folder: Path, clock: Clock) -> None:
    made = Authority(folder, clock=clock)
    Authority(devices_folder(folder), clock=clock).issue_device("ana.souza")
    assert renew(made) == []
    clock.pass_days(370)
    said = renew(made)
    assert len(said) == 5
    assert said[0].startswith("revocation list: it ends on ")
    assert said[1].startswith("devices' revocation list: it ends on ")
    assert said[2].startswith("host mac-a: it ends on ")
    assert not any("ana.souza" in reason for reason in said)
    assert renew(made) == []


def test_expiries_tell_each_files_end_and_zero_for_what_is_none(
    folder: Path, tmp_path: Path, clock: Clock
) -> None:
    files = host_files(folder, "mac-a")
    nothing, words = tmp_path / "nothing.pem", tmp_path / "words.pem"
    words.write_text("no certificate")
    found = expiries([files.bundle, files.ca, files.crl, nothing, words])
    now = clock.now.timestamp()
    assert 396 * 86400 < found[files.bundle] - now < 397 * 86400
    assert found[files.ca] - now > 3650 * 86400
    assert found[files.crl] - now == 397 * 86400
    assert (found[nothing], found[words]) == (0.0, 0.0)


def test_a_hosts_folder_tells_the_end_of_what_it_has(folder: Path, tmp_path: Path) -> None:
    tls = tmp_path / "tls"
    assert certificate_ends(tls) == {}
    host_files(folder, "edge-1").copy_to(tls)
    assert certificate_ends(tls).keys() == {"host.crt", "ca.crt", "crl.pem"}
    edge_files(folder).copy_to(tls)
    names = {"host.crt", "ca.crt", "crl.pem", "edge.pem", "devices.crt", "devices-crl.pem"}
    assert certificate_ends(tls).keys() == names
    (tls / "edge.pem").write_text("no certificate")
    assert certificate_ends(tls)["edge.pem"] == 0.0
