"""Proves what a site's authority issues and revokes, by OpenSSL's own judgement."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import pkcs12

from deployments.site.trust import authority as authorities
from deployments.site.trust.authority import Authority
from deployments.site.trust.certificates import common_name, names_of, unit
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import HostFiles, read_certificate
from tests.deployments.site.trust.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def made(tmp_path: Path, clock: Clock) -> Authority:
    return authorities.create(tmp_path / "ca", "test", clock=clock)


def devices_of(made: Authority) -> Authority:
    return Authority(authorities.devices_folder(made.folder), clock=made.now)


def context(files: HostFiles, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 alone, both ends checked, revocation too."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_3
    found.load_cert_chain(files.bundle)
    found.load_verify_locations(files.ca)
    found.load_verify_locations(files.crl)
    found.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    found.verify_mode = ssl.CERT_REQUIRED
    return found


def shake_hands(server: HostFiles, client: HostFiles, name: str) -> str:
    """Empty once both ends believe each other; else what the end that does not says."""
    ours, theirs = socket.socketpair()
    said: list[str] = []

    def serve() -> None:
        try:
            with context(server, server=True).wrap_socket(theirs, server_side=True) as end:
                end.sendall(b"welcome")
        except OSError as error:
            said.append(str(error))
        finally:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with context(client, server=False).wrap_socket(ours, server_hostname=name) as end:
            end.settimeout(5)
            end.recv(7)
    except OSError as error:
        said.append(str(error))
    finally:
        ours.close()
        thread.join(5)
    return "; ".join(said)


def test_two_hosts_believe_each_other_over_tls_1_3(made: Authority) -> None:
    a = made.issue("host", "mac-a", ["mac-a", "10.77.0.11"])
    b = made.issue("host", "mac-b", ["mac-b", "10.77.0.12"])
    assert shake_hands(a, b, "mac-a") == ""
    assert shake_hands(b, a, "10.77.0.12") == ""
    assert "IP address mismatch" in shake_hands(a, b, "10.77.0.12")


def test_a_host_of_another_authority_is_refused(made: Authority, tmp_path: Path) -> None:
    ours = made.issue("host", "mac-a", ["mac-a"])
    other = authorities.create(tmp_path / "other", "test")
    theirs = other.issue("host", "mac-a", ["mac-a"])
    assert "certificate verify failed" in shake_hands(theirs, ours, "mac-a")


def test_a_revoked_host_is_refused_by_the_list_beside_every_certificate(made: Authority) -> None:
    a, b = made.issue("host", "mac-a", ["mac-a"]), made.issue("host", "mac-b", ["mac-b"])
    assert len(made.revoke("host", "mac-b")) == 1
    assert "certificate revoked" in shake_hands(b, a, "mac-b")
    assert b.crl.read_bytes() == a.crl.read_bytes() == (made.folder / "crl.pem").read_bytes()
    with pytest.raises(TrustError, match="no certificate of host mac-b is valid now"):
        made.revoke("host", "mac-b")
    again = made.issue("host", "mac-b", ["mac-b"])
    assert shake_hands(again, a, "mac-b") == ""


def test_a_phone_never_passes_for_a_host_whatever_its_users_name(made: Authority) -> None:
    ours = made.issue("host", "mac-a", ["mac-a"])
    phone = devices_of(made).issue_device("mac-b").files
    assert "certificate verify failed" in shake_hands(ours, replace(phone, ca=ours.ca), "mac-a")


def test_the_edge_believes_devices_until_they_are_revoked(made: Authority) -> None:
    edge = made.issue("edge", "edge", ["medrec.localhost"])
    devices = devices_of(made)
    phone = devices.issue_device("ana.souza").files
    client = replace(
        phone, ca=made.issue("host", "mac-a", ["mac-a"]).ca, crl=made.folder / "crl.pem"
    )
    assert shake_hands(edge, client, "medrec.localhost") == ""
    devices.revoke("device", "ana.souza")
    authorities.publish_devices(made.folder)
    assert "certificate revoked" in shake_hands(edge, client, "medrec.localhost")


def test_revoking_a_name_revokes_what_was_replaced_before(made: Authority) -> None:
    made.issue("host", "mac-a", ["mac-a"])
    made.issue("host", "mac-a", ["mac-a"])
    assert len(made.revoke("host", "mac-a")) == 2


def test_the_list_drops_what_is_over_and_its_number_grows(made: Authority, clock: Clock) -> None:
    def listed() -> tuple[int, int]:
        crl = x509.load_pem_x509_crl((made.folder / "crl.pem").read_bytes())
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return len(crl), number

    made.issue("host", "mac-a", ["mac-a"])
    made.revoke("host", "mac-a")
    count, number = listed()
    assert count == 1
    clock.pass_days(398)
    made.make_list()
    assert listed() == (0, number + 1)


def test_what_each_kind_is_for_is_in_its_certificate(made: Authority) -> None:
    files = {
        "host": made.issue("host", "mac-a", ["mac-a", "10.0.0.1"]),
        "edge": made.issue("edge", "edge", ["medrec.hospital.example"]),
        "device": devices_of(made).issue_device("ana.souza").files,
    }
    usages = {}
    for kind, entry in files.items():
        certificate = read_certificate(entry.certificate)
        assert unit(certificate) == kind
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        usages[kind] = [usage._name for usage in found]
    assert usages == {
        "host": ["serverAuth", "clientAuth"],
        "edge": ["serverAuth"],
        "device": ["clientAuth"],
    }
    host = read_certificate(files["host"].certificate)
    assert (common_name(host), names_of(host)) == ("mac-a", ("mac-a", "10.0.0.1"))
    assert common_name(read_certificate(files["device"].certificate)) == "ana.souza"


def test_lifetimes_are_those_that_apple_takes(made: Authority) -> None:
    edge = read_certificate(made.issue("edge", "edge", ["medrec.hospital.example"]).certificate)
    assert edge.not_valid_after_utc - edge.not_valid_before_utc <= timedelta(days=397)
    assert made.certificate.not_valid_after_utc - made.now() > timedelta(days=3650)


def test_no_certificate_outlives_its_authority(made: Authority, clock: Clock) -> None:
    clock.pass_days(3600)
    late = read_certificate(made.issue("host", "mac-a", ["mac-a"]).certificate)
    assert late.not_valid_after_utc == made.certificate.not_valid_after_utc
    clock.pass_days(60)
    with pytest.raises(TrustError, match="authority has ended"):
        made.issue("host", "mac-a", ["mac-a"])


@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
def test_openssl_finds_nothing_wrong_with_the_chain(made: Authority, purpose: str) -> None:
    files = made.issue("host", "mac-a", ["mac-a", "10.77.0.11"])
    checks = ["-x509_strict", "-crl_check", "-CRLfile", str(files.crl), "-purpose", purpose]
    command = ["openssl", "verify", *checks, "-CAfile", str(files.ca), str(files.certificate)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_is_its_owners_alone(made: Authority) -> None:
    made.issue("host", "mac-a", ["mac-a"])
    devices_of(made).issue_device("ana.souza")
    for path in (made.folder, *made.folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_phones_file_opens_by_the_password_that_is_kept_nowhere(made: Authority) -> None:
    device = devices_of(made).issue_device("ana.souza")
    password = device.password.encode()
    key, certificate, others = pkcs12.load_key_and_certificates(device.p12.read_bytes(), password)
    assert key is not None
    assert certificate == read_certificate(device.files.certificate)
    assert others == [devices_of(made).certificate]
    kept = [path.read_bytes() for path in made.folder.rglob("*") if path.is_file()]
    assert not any(password in data for data in kept)


def test_a_certificate_of_another_authority_is_not_overwritten(
    made: Authority, tmp_path: Path
) -> None:
    other = authorities.create(tmp_path / "other", "other")
    other.issue("edge", "edge", ["real.hospital.example"]).copy_to(made.folder / "edge")
    with pytest.raises(TrustError, match="of another authority: move it away"):
        made.issue("edge", "edge", ["medrec.localhost"])


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "a..b", "x" * 65, "é"])
def test_a_name_that_is_no_name_is_refused(made: Authority, name: str) -> None:
    with pytest.raises(TrustError, match="a name has"):
        made.issue("host", name, ["mac-a"])


@pytest.mark.parametrize("name", ["MAC", "a b", "10.0.0.0/8", "", "-a", "a..b"])
def test_an_address_that_is_none_is_refused(made: Authority, name: str) -> None:
    with pytest.raises(TrustError, match="neither an address nor a DNS name"):
        made.issue("host", "mac-a", [name])


def test_a_key_that_others_can_read_is_refused(made: Authority) -> None:
    (made.folder / "ca.key").chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        Authority(made.folder)


def test_the_key_of_another_authority_is_refused(made: Authority, tmp_path: Path) -> None:
    other = authorities.create(tmp_path / "other", "other")
    (made.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
    with pytest.raises(TrustError, match="is not the key of"):
        Authority(made.folder)


def test_a_second_authority_in_the_folder_is_refused(made: Authority) -> None:
    with pytest.raises(TrustError, match="already"):
        authorities.create(made.folder, "test")


def test_two_changes_at_once_are_refused(made: Authority) -> None:
    with (
        authorities.changing(made.folder),
        pytest.raises(TrustError, match="another medrec"),
        authorities.changing(made.folder),
    ):
        pass
