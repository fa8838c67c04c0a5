"""The files of a certificate, by name, and reading them; every private one is its owner's alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deployments.data.durable import replace_file
from deployments.site.trust.certificates import Key, Kind
from deployments.site.trust.errors import TrustError


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Where a certificate's PEM files lie: for a host host.pem, host.crt, host.key, ca.crt, crl.pem.

    `bundle` is certificate, chain and key in one, as HAProxy reads it; etcd and Patroni take
    `certificate` and `key`; all check who connects by `ca` and `crl`: for the edge's certificate these
    are devices, devices.crt and devices-crl.pem.
    """

    bundle: Path
    certificate: Path
    key: Path
    ca: Path
    crl: Path

    @classmethod
    def in_folder(cls, folder: Path, kind: Kind = "host") -> HostFiles:
        """The files under the names that `medrec ca` gives them: a host's, the edge's, a device's."""
        return cls(
            bundle=folder / f"{kind}.pem",
            certificate=folder / f"{kind}.crt",
            key=folder / f"{kind}.key",
            ca=folder / ("devices.crt" if kind == "edge" else "ca.crt"),
            crl=folder / ("devices-crl.pem" if kind == "edge" else "crl.pem"),
        )

    @property
    def folder(self) -> Path:
        """The folder of all five."""
        return self.bundle.parent

    @property
    def paths(self) -> tuple[Path, ...]:
        """All five; a reader that finds the bundle new finds the others new as well."""
        return self.ca, self.crl, self.key, self.certificate, self.bundle

    def copy_to(self, folder: Path) -> None:
        """Put the five files into another folder (0700) under their names (0600), durably."""
        for path in self.paths:
            replace_file(folder / path.name, _bytes_of(path))


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a PEM file. Raises `TrustError`."""
    try:
        return x509.load_pem_x509_certificate(_bytes_of(path))
    except ValueError:
        raise TrustError(f"{path} holds no certificate that can be read") from None


def read_key(path: Path) -> Key:
    """A private key on P-256. Raises `TrustError`, also when others than its owner can read it."""
    data = _bytes_of(path)
    if path.stat().st_mode & 0o077:
        raise TrustError(f"{path} can be read by others than its owner: chmod 600 it")
    try:
        key = load_pem_private_key(data, password=None)
    except (ValueError, TypeError):
        raise TrustError(f"{path} holds no private key that can be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise TrustError(f"{path} is not a key on P-256")
    return key


def key_pem(key: Key) -> bytes:
    """A private key as PKCS #8."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def write_pair(files: HostFiles, certificate: x509.Certificate, key: Key) -> None:
    """Key, certificate, then the bundle, each replaced durably.

    Cut off in between, they do not belong together, which `belong_together` finds.
    """
    files.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(files.key, key_pem(key))
    replace_file(files.certificate, certificate_pem(certificate))
    replace_file(files.bundle, certificate_pem(certificate) + key_pem(key))


def belong_together(files: HostFiles) -> bool:
    """Whether certificate, key and bundle are of one making."""
    try:
        certificate, key = read_certificate(files.certificate), read_key(files.key)
        bundle = _bytes_of(files.bundle)
    except TrustError:
        return False
    whole = certificate_pem(certificate) + key_pem(key)
    return bundle == whole and certificate.public_key() == key.public_key()


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror}") from error
