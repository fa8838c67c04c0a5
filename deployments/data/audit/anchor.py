"""Anchors: the head of the chain, signed, for another machine to keep.

Whoever owns the database can replace the whole chain by another that is sound in itself. It will
not pass through the anchors that were taken of the real one.
"""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from deployments.data.durable import synchronise
from deployments.data.errors import Invalid

KEY_FILE = "anchor_key.pem"
_PURPOSE = "medical-record audit anchor 1"


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the chain of `site` stood at a moment; `signature` over the canonical JSON of the rest."""

    site: str
    seq: int
    hash: bytes
    at: str
    key_id: str
    signature: bytes = b""

    def signed_bytes(self) -> bytes:
        """What the signature is over."""
        return orjson.dumps(
            {
                "purpose": _PURPOSE,
                "site": self.site,
                "seq": self.seq,
                "hash": self.hash.hex(),
                "at": self.at,
                "key_id": self.key_id,
            },
            option=orjson.OPT_SORT_KEYS,
        )

    def line(self) -> bytes:
        """The anchor as one line of JSON."""
        signature = base64.b64encode(self.signature).decode()
        fields = {**orjson.loads(self.signed_bytes()), "signature": signature}
        return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS) + b"\n"


def sign(key: Ed25519PrivateKey, site: str, seq: int, hash: bytes) -> Anchor:
    """An anchor of the head, now."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    bare = Anchor(site, seq, hash, at, key_id(key.public_key()))
    return Anchor(site, seq, hash, at, bare.key_id, key.sign(bare.signed_bytes()))


def read(text: bytes, public_key: Ed25519PublicKey) -> list[Anchor]:
    """The anchors of a file, one a line. Raises `Invalid` for what this key did not sign."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise Invalid("the file holds no anchor", param="anchor")
    return [_parsed(number, line, public_key) for number, line in enumerate(lines, 1)]


def load_key(secrets: Path) -> Ed25519PrivateKey:
    """The anchor key of this site, made at first use, readable by its owner only.

    Raises `Invalid` if others can read the file, or if it is no such key.
    """
    path = secrets / KEY_FILE
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _existing(path)
    key = Ed25519PrivateKey.generate()
    with os.fdopen(handle, "wb") as file:
        file.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        file.flush()
        synchronise(file.fileno())
    return key


def load_public_key(pem: bytes) -> Ed25519PublicKey:
    """A public key as `public_pem` writes it. Raises `Invalid`."""
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise Invalid("this is no Ed25519 public key", param="public-key")
    return key


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public key, for the machine that keeps the anchors."""
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def key_id(key: Ed25519PublicKey) -> str:
    """The key itself in base64url: 43 characters, short enough to be its own name."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _existing(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise Invalid(f"{path} can be read by others: chmod 600", code="key_exposed")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise Invalid(f"{path} is no Ed25519 key", code="bad_key")
    return key


def _parsed(number: int, line: bytes, public_key: Ed25519PublicKey) -> Anchor:
    try:
        told = orjson.loads(line)
        anchor = Anchor(
            site=str(told["site"]),
            seq=int(told["seq"]),
            hash=bytes.fromhex(told["hash"]),
            at=str(told["at"]),
            key_id=str(told["key_id"]),
            signature=base64.b64decode(told["signature"], validate=True),
        )
        public_key.verify(anchor.signature, anchor.signed_bytes())
    except InvalidSignature:
        message = f"line {number} of the anchors is not signed by this key"
        raise Invalid(message, param="anchor", code="bad_signature") from None
    except (ValueError, KeyError, TypeError):
        raise Invalid(f"line {number} of the anchors is no anchor", param="anchor") from None
    return anchor
