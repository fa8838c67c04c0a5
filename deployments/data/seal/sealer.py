"""Sealing of single values: AES-256-GCM under a key of its own each, wrapped by the site key.

Nonces: a data key seals one value once, so its nonce cannot repeat. A site key wraps many data keys
under random nonces of 96 bits, which NIST SP 800-38D (8.3) bounds to 2**32 times: rotate it before.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from deployments.data.seal import keys
from deployments.data.seal.errors import SealBroken, SiteKeysError

RELOAD_S = 1.0
KEY_BYTES = 32
NONCE_BYTES = 12
_DATA = b"medrec/data/1\0"
_WRAP = b"medrec/wrap/1\0"
_BLIND = b"medrec/blind/1\0"
_BLIND_BYTES = 16


@dataclass(frozen=True, slots=True)
class Sealed:
    """One sealed value: the site key's id, the wrapped data key, nonce and ciphertext with tag."""

    key_id: str
    wrapped_key: bytes = field(repr=False)
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Ring:
    """The keys of one reading of the file, ready for use; replaced as a whole."""

    current: str
    wrappers: Mapping[str, AESGCM]
    index: bytes

    @classmethod
    def of(cls, loaded: keys.SiteKeys) -> _Ring:
        wrappers = {name: AESGCM(key.secret) for name, key in loaded.keys.items()}
        return cls(loaded.current, wrappers, loaded.index)


class Sealer:
    """Seals and opens with the site keys of a secrets folder; follows rotations by itself."""

    def __init__(self, secrets: Path, loaded: keys.SiteKeys) -> None:
        self._secrets = secrets
        self._stamp: tuple[int, int] | None = None
        self._looked_s = time.monotonic()
        self._ring = _Ring.of(loaded)

    @classmethod
    def load(cls, secrets: Path) -> Sealer:
        """Raises `SiteKeysError` if there are no site keys; it names the command that makes them."""
        stamp = _stamp(secrets)
        sealer = cls(secrets, keys.read(secrets))
        sealer._stamp = stamp
        return sealer

    @property
    def current(self) -> str:
        """The id of the site key that wraps now."""
        self._look()
        return self._ring.current

    def seal(self, plain: bytes, context: bytes) -> Sealed:
        """Encrypt `plain` under a fresh key. `context` says where it belongs: type, id, version."""
        data_key = os.urandom(KEY_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        data = nonce + AESGCM(data_key).encrypt(nonce, plain, _DATA + context)
        name, wrapped = self.wrap(data_key)
        return Sealed(name, wrapped, data)

    def open(self, sealed: Sealed, context: bytes) -> bytes:
        """The plain bytes; raises `SealBroken` unless they are exactly what was sealed here."""
        data_key = self.unwrap(sealed.key_id, sealed.wrapped_key)
        nonce, data = sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:]
        try:
            return AESGCM(data_key).decrypt(nonce, data, _DATA + context)
        except (InvalidTag, ValueError):
            raise SealBroken("A sealed value is damaged or belongs to another record.") from None

    def wrap(self, data_key: bytes) -> tuple[str, bytes]:
        """The current site key's id, and the data key under it."""
        self._look()
        ring = self._ring
        nonce = os.urandom(NONCE_BYTES)
        sealed = ring.wrappers[ring.current].encrypt(nonce, data_key, _WRAP + ring.current.encode())
        return ring.current, nonce + sealed

    def unwrap(self, key_id: str, wrapped_key: bytes) -> bytes:
        """The data key; raises `SealBroken` on an unknown site key or changed bytes."""
        wrapper = self._ring.wrappers.get(key_id)
        if wrapper is None:
            self._reload()
            wrapper = self._ring.wrappers.get(key_id)
        if wrapper is None:
            raise SealBroken("A value is sealed under a site key that is not here.")
        nonce, data = wrapped_key[:NONCE_BYTES], wrapped_key[NONCE_BYTES:]
        try:
            return wrapper.decrypt(nonce, data, _WRAP + key_id.encode())
        except (InvalidTag, ValueError):
            raise SealBroken("A wrapped key is damaged.") from None

    def blind(self, purpose: str, value: str) -> str:
        """A keyed one-way token of 128 bits (22 letters), equal for equal values of one purpose."""
        name = purpose.encode()
        message = _BLIND + len(name).to_bytes(4, "big") + name + value.encode()
        token = hmac.digest(self._ring.index, message, hashlib.sha256)[:_BLIND_BYTES]
        return base64.urlsafe_b64encode(token).rstrip(b"=").decode()

    def _look(self) -> None:
        """Take notice of a changed file, within `RELOAD_S` of the change."""
        now_s = time.monotonic()
        if now_s - self._looked_s < RELOAD_S:
            return
        self._looked_s = now_s
        if _stamp(self._secrets) != self._stamp:
            self._reload()

    def _reload(self) -> None:
        # A file that is away or half-restored must not stop what the keys in memory can do.
        stamp = _stamp(self._secrets)
        try:
            self._ring = _Ring.of(keys.read(self._secrets))
        except SiteKeysError:
            return
        self._stamp = stamp


def _stamp(secrets: Path) -> tuple[int, int] | None:
    try:
        found = keys.path_of(secrets).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
