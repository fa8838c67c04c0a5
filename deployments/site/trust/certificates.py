"""X.509 of a site (RFC 5280): pure builders of its certificates and of its revocation list.

ECDSA on P-256 throughout, which TLS 1.3 and every iPhone speak. Apple refuses server certificates
that last longer than 398 days or name their hosts outside of subjectAltName.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from deployments.site.trust.errors import TrustError

Kind = Literal["host", "edge", "device"]
KINDS: tuple[Kind, ...] = ("host", "edge", "device")
Key = ec.EllipticCurvePrivateKey

ORGANIZATION = "Medical Record"
LEAF_DAYS = 397
AUTHORITY_DAYS = 3652
# Past it OpenSSL refuses every certificate, so that it lasts as long as what it is about.
LIST_DAYS = 397
# A host whose clock is late must not refuse a certificate that was made just now.
_BACKDATED = timedelta(hours=1)
_DNS = re.compile(r"(?:\*\.)?(?!-)[a-z0-9-]{1,63}(?:\.(?!-)[a-z0-9-]{1,63})*", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?", re.ASCII)
_USAGES: Mapping[Kind, Sequence[x509.ObjectIdentifier]] = {
    "host": (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH),
    "edge": (ExtendedKeyUsageOID.SERVER_AUTH,),
    "device": (ExtendedKeyUsageOID.CLIENT_AUTH,),
}


def new_key() -> Key:
    """A fresh private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def checked_name(name: str) -> str:
    """The name of a host or user, which also names a folder. Raises `TrustError`."""
    if _NAME.fullmatch(name) is None or ".." in name:
        raise TrustError("a name has 1 to 64 letters, digits, dots, dashes, underscores or @")
    return name


def general_name(text: str) -> x509.GeneralName:
    """An address or a DNS name as subjectAltName has it. Raises `TrustError`."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    if _DNS.fullmatch(text) is None or len(text) > 253:
        raise TrustError(f"{text!r} is neither an address nor a DNS name in lower case")
    return x509.DNSName(text)


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The addresses and DNS names that a certificate is for, in its order."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(
        str(entry.value) for entry in found if isinstance(entry, x509.DNSName | x509.IPAddress)
    )


def common_name(certificate: x509.Certificate) -> str:
    """The subject's CN: the name of a host or of a user; empty if there is none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def unit(certificate: x509.Certificate) -> str:
    """The subject's OU, which is the certificate's kind; empty if there is none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    return str(found[0].value) if found else ""


def authority(key: Key, site: str, now: datetime) -> x509.Certificate:
    """The self-signed certificate of a site's authority, which signs leaves and nothing else."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{checked_name(site)} CA"),
        ]
    )
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def leaf(
    kind: Kind,
    name: str,
    names: Iterable[str],
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate,
    issuer_key: Key,
    now: datetime,
) -> x509.Certificate:
    """A certificate of CN `name` and OU `kind` for `names`; it never outlives its issuer."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, kind),
            x509.NameAttribute(NameOID.COMMON_NAME, checked_name(name)),
        ]
    )
    begins = now - _BACKDATED
    ends = min(begins + timedelta(days=LEAF_DAYS), issuer.not_valid_after_utc)
    if ends <= now:
        raise TrustError("the site's authority has ended: medrec ca init in a new folder")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(_USAGES[kind]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    entries = [general_name(text) for text in names]
    if entries:
        builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def revocation_list(
    revoked: Mapping[int, datetime],
    number: int,
    issuer: x509.Certificate,
    issuer_key: Key,
    now: datetime,
) -> x509.CertificateRevocationList:
    """The list of revoked serials, each with its moment; `number` grows with every list."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - _BACKDATED)
        .next_update(now + timedelta(days=LIST_DAYS))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_identifier(issuer), critical=False)
    )
    for serial, moment in revoked.items():
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        )
    return builder.sign(issuer_key, hashes.SHA256())


def _authority_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
