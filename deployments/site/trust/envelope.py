"""A sealed envelope from one host of a site to another: only that host opens it, and knows who sent it.

HPKE (RFC 9180: P-256, HKDF-SHA256, AES-256-GCM) to the key of the recipient's certificate; ECDSA by
the sender's over all that stands beside it. Both certificates must be hosts' of the same authority.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from deployments.site.trust.authority import Clock, utc_now
from deployments.site.trust.certificates import common_name, unit
from deployments.site.trust.errors import TrustError
from deployments.site.trust.files import HostFiles, certificate_pem, read_certificate, read_key

MOST_BYTES = 256 * 1024
# Whoever keeps an old one must not be able to bring back keys that were dropped since.
GOOD_FOR = timedelta(days=7)
_EARLY = timedelta(hours=1)  # clocks of two hosts may differ
_FORMAT = "medrec-sealed-keys-1"
_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_HASH = ec.ECDSA(hashes.SHA256())


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope, who sealed it and when."""

    sender: str
    made_at: datetime
    content: bytes = field(repr=False)


def seal(
    content: bytes, sender: HostFiles, recipient: x509.Certificate, *, clock: Clock = utc_now
) -> bytes:
    """`content` for the host of `recipient`. Raises `TrustError` unless that is one of this site."""
    now = clock()
    _check_host(recipient, sender, now, "the recipient's certificate")
    own = read_certificate(sender.certificate)
    public = _public_key(recipient)
    head = {
        "format": _FORMAT,
        "from": common_name(own),
        "to": common_name(recipient),
        "to_key": _fingerprint(recipient),
        "made_at": now.isoformat(),
        "certificate": certificate_pem(own).decode("ascii"),
    }
    sealed = _SUITE.encrypt(content, public, _canonical(head))
    body = {**head, "sealed": base64.b64encode(sealed).decode("ascii")}
    signature = read_key(sender.key).sign(_canonical(body), _HASH)
    whole = {**body, "signature": base64.b64encode(signature).decode("ascii")}
    return json.dumps(whole, indent=1).encode()


def unseal(data: bytes, own: HostFiles, *, clock: Clock = utc_now) -> Opened:
    """What a host of the same authority has sealed to this one. Raises `TrustError` with the reason."""
    head, sealed, signature, certificate = _parsed(data)
    now = clock()
    _check_host(certificate, own, now, "the sender's certificate")
    body = {**head, "sealed": base64.b64encode(sealed).decode("ascii")}
    try:
        _public_key(certificate).verify(signature, _canonical(body), _HASH)
    except InvalidSignature:
        raise TrustError("the sealed keys were changed on their way") from None
    if head["from"] != common_name(certificate):
        raise TrustError("the sealed keys name another sender than their certificate")
    made_at = _moment(head["made_at"])
    if not now - GOOD_FOR <= made_at <= now + _EARLY:
        raise TrustError(f"the sealed keys of {made_at:%Y-%m-%d %H:%M} are too old or of tomorrow")
    if head["to_key"] != _fingerprint(read_certificate(own.certificate)):
        here = common_name(read_certificate(own.certificate))
        raise TrustError(
            f"sealed to {head['to']}, and not to the present certificate of this host ({here})"
        )
    try:
        content = _SUITE.decrypt(sealed, read_key(own.key), _canonical(head))
    except (InvalidTag, ValueError):
        raise TrustError("the sealed keys do not open by this host's key") from None
    return Opened(head["from"], made_at, content)


def _check_host(certificate: x509.Certificate, own: HostFiles, now: datetime, what: str) -> None:
    """Raise `TrustError` unless it is a host's, of the authority of `own`, and good now."""
    try:
        certificate.verify_directly_issued_by(read_certificate(own.ca))
    except (ValueError, TypeError, InvalidSignature):
        raise TrustError(f"{what} is of another authority than this host's") from None
    if unit(certificate) != "host":
        raise TrustError(f"{what} is not a host's")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise TrustError(f"{what} is over, or not good yet")
    try:
        revoked = x509.load_pem_x509_crl(own.crl.read_bytes())
    except (OSError, ValueError):
        raise TrustError(f"{own.crl} cannot be read") from None
    if revoked.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
        raise TrustError(f"{what} is revoked")


def _parsed(data: bytes) -> tuple[dict[str, str], bytes, bytes, x509.Certificate]:
    try:
        if len(data) > MOST_BYTES:
            raise ValueError
        raw: dict[str, Any] = json.loads(data)
        names = ("format", "from", "to", "to_key", "made_at", "certificate")
        head = {name: raw[name] for name in names}
        if head["format"] != _FORMAT or not all(isinstance(text, str) for text in head.values()):
            raise ValueError
        sealed = base64.b64decode(raw["sealed"], validate=True)
        signature = base64.b64decode(raw["signature"], validate=True)
        certificate = x509.load_pem_x509_certificate(head["certificate"].encode("ascii"))
    except (ValueError, KeyError, TypeError):
        raise TrustError("these are no sealed keys, or damaged ones") from None
    return head, sealed, signature, certificate


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TrustError("the sealed keys do not say when they were made") from None
    if moment.tzinfo is None:
        raise TrustError("the sealed keys do not say when they were made")
    return moment


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise TrustError("a host's certificate has a key on P-256")
    return key


def _fingerprint(certificate: x509.Certificate) -> str:
    info = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(info).hexdigest()


def _canonical(values: dict[str, str]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode()
