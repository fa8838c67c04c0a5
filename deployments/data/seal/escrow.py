"""Escrow: the site keys can be rebuilt by k of n holders together, and by nobody with fewer.

The escrow has a key pair (X25519). Its private key is split by SLIP-39 and never stored; the site
keys are sealed to the public one (HPKE, RFC 9180), so a rotation renews the bundle without holders.
The bundle holds every site key and the index key: all without which records or searches are lost.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from shamir_mnemonic import (  # type: ignore[import-untyped]
    MnemonicError,
    combine_mnemonics,
    decode_mnemonics,
    generate_mnemonics,
)

from deployments.data.seal.errors import SiteKeysError
from deployments.data.seal.keys import BUNDLE, SiteKeys, parse

MOST_HOLDERS = 16  # SLIP-39's
_FORMAT = "medrec-escrow-1"
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_WORDS = 33  # of a share of 256 bits


@dataclass(frozen=True, slots=True)
class Bundle:
    """Site keys sealed to an escrow's public key, and what may be known of them by anyone."""

    fingerprint: str
    public_key: bytes
    holders: int
    threshold: int
    made_at: str
    current: str
    keys: tuple[str, ...]
    sealed: bytes = field(repr=False)

    def dump(self) -> bytes:
        """The file's bytes."""
        values = {
            **_public(self),
            "public_key": base64.b64encode(self.public_key).decode(),
            "sealed": base64.b64encode(self.sealed).decode(),
        }
        return json.dumps(values, indent=1).encode()

    def renewed(self, keys: SiteKeys) -> Bundle:
        """The same escrow around other site keys; its holders' shares open it as before."""
        return _sealed(replace(self, made_at=_now()), keys)

    def also_seal(self, plain: bytes, purpose: bytes) -> bytes:
        """Something else for the same holders; `also_open` opens it for the same purpose."""
        public = X25519PublicKey.from_public_bytes(self.public_key)
        return _SUITE.encrypt(plain, public, purpose + self.fingerprint.encode())


@dataclass(frozen=True, slots=True)
class Share:
    """One holder's part of the escrow's private key."""

    number: int
    holders: int
    threshold: int
    fingerprint: str
    made_at: str
    words: str = field(repr=False)

    def text(self) -> str:
        """What the holder keeps, on paper or in a safe."""
        return (
            f"Medical Record: share {self.number} of {self.holders} of the site keys' escrow\n"
            f"any {self.threshold} of the shares open it: medrec seal recover --share FILE ...\n"
            f"escrow: {self.fingerprint}\n"
            f"made: {self.made_at}\n"
            f"\n{self.words}\n"
        )


def establish(keys: SiteKeys, *, holders: int, threshold: int) -> tuple[Bundle, list[Share]]:
    """A new escrow around `keys`. Raises `SiteKeysError` on numbers that make no sense."""
    if not 2 <= threshold <= holders <= MOST_HOLDERS:
        raise SiteKeysError(
            f"an escrow has 2 to {MOST_HOLDERS} holders, and a threshold of 2 to all of them"
        )
    private = X25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    now = _now()
    empty = Bundle(_fingerprint(public), public, holders, threshold, now, "", (), b"")
    (group,) = generate_mnemonics(1, [(threshold, holders)], private.private_bytes_raw())
    shares = [
        Share(number, holders, threshold, empty.fingerprint, now, words)
        for number, words in enumerate(group, 1)
    ]
    return _sealed(empty, keys), shares


def _sealed(bundle: Bundle, keys: SiteKeys) -> Bundle:
    made = replace(bundle, current=keys.current, keys=tuple(sorted(keys.keys)), sealed=b"")
    public = X25519PublicKey.from_public_bytes(bundle.public_key)
    return replace(made, sealed=_SUITE.encrypt(keys.dump(), public, _info(made)))


def recover(bundle: Bundle, shares: Sequence[str]) -> SiteKeys:
    """The site keys, from the texts of enough shares. Raises `SiteKeysError` that says why not."""
    private = _private_key(bundle, shares)
    try:
        plain = _SUITE.decrypt(bundle.sealed, private, _info(bundle))
    except (InvalidTag, ValueError):
        raise SiteKeysError("the bundle is damaged: take another copy of it") from None
    return parse(plain, "the bundle's content")


def also_open(bundle: Bundle, shares: Sequence[str], sealed: bytes, purpose: bytes) -> bytes:
    """What `Bundle.also_seal` sealed. Raises `SiteKeysError` that says why not."""
    try:
        return _SUITE.decrypt(
            sealed, _private_key(bundle, shares), purpose + bundle.fingerprint.encode()
        )
    except (InvalidTag, ValueError):
        raise SiteKeysError("what the escrow sealed is damaged: take another copy") from None


def _private_key(bundle: Bundle, shares: Sequence[str]) -> X25519PrivateKey:
    words = list(dict.fromkeys(_words(text, number) for number, text in enumerate(shares, 1)))
    if len(words) < bundle.threshold:
        raise SiteKeysError(
            f"{len(words)} different shares are too few: this escrow needs {bundle.threshold}"
        )
    try:
        # SLIP-39 wants exactly as many as are needed.
        secret = combine_mnemonics(words[: bundle.threshold])
    except MnemonicError:
        # The library's own words may quote a share's.
        raise SiteKeysError("the shares do not go together: one is of another escrow") from None
    if len(secret) != 32:
        raise SiteKeysError("the shares are of something else than an escrow of site keys")
    private = X25519PrivateKey.from_private_bytes(secret)
    if _fingerprint(private.public_key().public_bytes_raw()) != bundle.fingerprint:
        raise SiteKeysError(
            f"the shares are of another escrow than this bundle ({bundle.fingerprint})"
        )
    return private


def parse_bundle(data: bytes, origin: str) -> Bundle:
    """The bundle in `data`. Raises `SiteKeysError` that names `origin`."""
    try:
        raw: dict[str, Any] = json.loads(data)
        public = base64.b64decode(raw["public_key"], validate=True)
        if raw["format"] != _FORMAT or _fingerprint(public) != raw["fingerprint"]:
            raise ValueError
        return Bundle(
            fingerprint=raw["fingerprint"],
            public_key=public,
            holders=int(raw["holders"]),
            threshold=int(raw["threshold"]),
            made_at=str(raw["made_at"]),
            current=str(raw["current"]),
            keys=tuple(map(str, raw["keys"])),
            sealed=base64.b64decode(raw["sealed"], validate=True),
        )
    except (ValueError, KeyError, TypeError):
        raise SiteKeysError(f"{origin} is no escrow bundle, or a damaged one") from None


def read_bundle(secrets: Path) -> Bundle | None:
    """The bundle that lies beside the site keys; None if there is no escrow."""
    path = secrets / BUNDLE
    try:
        return parse_bundle(path.read_bytes(), str(path))
    except FileNotFoundError:
        return None


def _words(text: str, number: int) -> str:
    """The words of a share's file, or of a line that holds them alone."""
    words = text.split()[-_WORDS:]
    if len(words) < _WORDS:
        raise SiteKeysError(f"share {number} has {len(words)} words instead of {_WORDS}")
    joined = " ".join(word.lower() for word in words)
    try:
        decode_mnemonics([joined])
    except MnemonicError:
        raise SiteKeysError(f"share {number} has a word that is not as it was written") from None
    return joined


def _fingerprint(public_key: bytes) -> str:
    return hashlib.sha256(b"medrec/escrow/1\0" + public_key).hexdigest()[:16]


def _public(bundle: Bundle) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "fingerprint": bundle.fingerprint,
        "holders": bundle.holders,
        "threshold": bundle.threshold,
        "made_at": bundle.made_at,
        "current": bundle.current,
        "keys": list(bundle.keys),
    }


def _info(bundle: Bundle) -> bytes:
    """What the sealing binds: everything that stands beside it in the open."""
    return json.dumps(_public(bundle), sort_keys=True).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
