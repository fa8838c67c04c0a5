"""A site's certificate authority: one folder with its key, its register and what it has issued.

ca.crt ca.key crl.pem register.json
hosts/<host>/    host.pem host.crt host.key ca.crt crl.pem
edge/            edge.pem edge.crt edge.key ca.crt crl.pem
devices/<user>/  device.pem device.crt device.key device.p12 ca.crt crl.pem
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, pkcs12

from deployments.data.durable import replace_file
from deployments.site.trust import certificates
from deployments.site.trust import register as registers
from deployments.site.trust.certificates import Key, Kind
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import (
    HostFiles,
    certificate_pem,
    key_pem,
    read_certificate,
    read_key,
    write_pair,
)

EDGE = "edge"
P12 = "device.p12"
_CERTIFICATE, _KEY, _LIST, _LOCK = "ca.crt", "ca.key", "crl.pem", "ca.lock"
_P12_ROUNDS = 50_000

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present moment, in whole seconds as certificates tell time."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Device:
    """A user's certificate for the emergency service; `password` opens `p12`, and is kept nowhere."""

    files: HostFiles
    p12: Path
    password: str


class Authority:
    """Issues, renews and revokes. Change it only within `changing`."""

    def __init__(self, folder: Path, *, clock: Clock = utc_now) -> None:
        """Raises `TrustError` if the folder holds no authority."""
        if not exists(folder):
            raise TrustError(f"there is no authority in {folder}: medrec ca init makes one")
        self.folder, self.now = folder, clock
        self.certificate = read_certificate(folder / _CERTIFICATE)
        self._key: Key = read_key(folder / _KEY)
        if self.certificate.public_key() != self._key.public_key():
            raise TrustError(f"{folder / _KEY} is not the key of {folder / _CERTIFICATE}")

    @property
    def register(self) -> registers.Register:
        """What was issued and revoked so far, as it is on disk."""
        return registers.read(self.folder)

    def files(self, kind: Kind, name: str) -> HostFiles:
        """Where the certificate of this kind and name lies, whether it is there or not."""
        return HostFiles.in_folder(folder_of(self.folder, kind, name), kind)

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Whether its signature is this authority's."""
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except Exception:  # cryptography tells a foreign issuer in four classes
            return False
        return True

    def issue(self, kind: Kind, name: str, names: Sequence[str]) -> HostFiles:
        """Make a key and a certificate of this kind, name, and addresses and DNS names.

        Raises `TrustError` where a certificate of somebody else's would be overwritten.
        """
        files = self.files(kind, name)
        if files.certificate.exists() and not self.has_issued(read_certificate(files.certificate)):
            raise TrustError(f"{files.certificate} is of another authority: move it away first")
        key = certificates.new_key()
        made = certificates.leaf(
            kind, name, names, key.public_key(), self.certificate, self._key, self.now()
        )
        # On record first: what was issued and then lost can still be revoked.
        registers.write(self.folder, self.register.with_issued(made))
        files.folder.parent.mkdir(exist_ok=True, mode=0o700)
        write_pair(files, made, key)
        if kind == "edge":
            publish_devices(self.folder)
        else:
            self.publish(files)
        return files

    def issue_device(self, user: str) -> Device:
        """A client certificate of OU=device, also as PKCS #12, which an iPhone installs."""
        files = self.issue("device", user, ())
        password = secrets.token_hex(16)
        # iOS opens these algorithms in every version. They are weak; the password's 128 bits are not.
        encryption = (
            PrivateFormat.PKCS12.encryption_builder()
            .kdf_rounds(_P12_ROUNDS)
            .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
            .hmac_hash(hashes.SHA1())
            .build(password.encode())
        )
        p12 = files.folder / P12
        data = pkcs12.serialize_key_and_certificates(
            user.encode(),
            read_key(files.key),
            read_certificate(files.certificate),
            [self.certificate],
            encryption,
        )
        replace_file(p12, data)
        return Device(files, p12, password)

    def revoke(self, kind: Kind, name: str) -> list[registers.Issued]:
        """Revoke every certificate of this kind and name that lives, and publish the list.

        Raises `TrustError` if there is none.
        """
        now = self.now().timestamp()
        found = self.register.alive(kind, name, now)
        if not found:
            raise TrustError(f"no certificate of {kind} {name} is valid now: medrec ca list")
        serials = {entry.serial for entry in found}
        registers.write(self.folder, self.register.with_revoked(serials, now))
        self.make_list()
        return found

    def make_list(self) -> None:
        """Sign a new revocation list and put it beside every certificate that was issued."""
        known = self.register.with_list()
        moment = self.now()
        made = certificates.revocation_list(
            known.revoked(moment.timestamp()),
            known.list_number,
            self.certificate,
            self._key,
            moment,
        )
        registers.write(self.folder, known)
        replace_file(self.folder / _LIST, made.public_bytes(Encoding.PEM))
        for kind, name in {(entry.kind, entry.name) for entry in known.certificates}:
            files = self.files(kind, name)
            if kind == "edge" or not files.certificate.exists():
                continue
            if self.has_issued(read_certificate(files.certificate)):
                self.publish(files)

    def list_ends(self) -> datetime:
        """When the revocation list ends. Raises `TrustError` if there is none."""
        path = self.folder / _LIST
        try:
            found = x509.load_pem_x509_crl(path.read_bytes())
        except (OSError, ValueError):
            raise TrustError(f"{path} cannot be read") from None
        return found.next_update_utc or found.last_update_utc

    def publish(self, files: HostFiles) -> None:
        """Put the authority's certificate and its list beside a certificate."""
        replace_file(files.ca, certificate_pem(self.certificate))
        replace_file(files.crl, (self.folder / _LIST).read_bytes())


def folder_of(folder: Path, kind: Kind, name: str) -> Path:
    """Where an authority's folder keeps the certificate of this kind and name."""
    certificates.checked_name(name)
    if kind == "edge":
        return folder / "edge"
    return folder / ("hosts" if kind == "host" else "users") / name


def devices_folder(folder: Path) -> Path:
    """Where the site's authority has the one of its devices."""
    return folder / "devices"


def publish_devices(folder: Path) -> None:
    """Put the devices' authority and its list beside the edge's certificate, if there is one."""
    edge, devices = HostFiles.in_folder(folder / "edge", "edge"), devices_folder(folder)
    if edge.folder.exists():
        replace_file(edge.ca, (devices / _CERTIFICATE).read_bytes())
        replace_file(edge.crl, (devices / _LIST).read_bytes())


def exists(folder: Path) -> bool:
    """Whether the folder holds an authority."""
    return (folder / _CERTIFICATE).exists()


def create(folder: Path, site: str, *, clock: Clock = utc_now) -> Authority:
    """Make an authority for the site of this name, and one for its devices.

    Raises `TrustError` if there is one already.
    """
    if exists(folder):
        raise TrustError(f"there is an authority in {folder} already")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not exists(devices_folder(folder)):
        _create(devices_folder(folder), f"{site}-devices", clock)
    return _create(folder, site, clock)


def _create(folder: Path, name: str, clock: Clock) -> Authority:
    folder.mkdir(exist_ok=True, mode=0o700)
    key = certificates.new_key()
    made = certificates.authority(key, name, clock())
    replace_file(folder / _KEY, key_pem(key))
    registers.write(folder, registers.Register())
    # The certificate last: it says that the rest is there.
    replace_file(folder / _CERTIFICATE, certificate_pem(made))
    created = Authority(folder, clock=clock)
    created.make_list()
    return created


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold an authority's folder for a change. Raises `TrustError` if another process has it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise TrustError(f"another medrec is changing the authority in {folder}") from None
        yield
    finally:
        os.close(handle)
