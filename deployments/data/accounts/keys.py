"""API keys: `mr_<id>_<secret>`, whose last six characters are a checksum of the rest.

A secret scanner finds them with `\\bmr_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\\b` and knows by the checksum
that one is real. Only the SHA-256 of a key is stored: 256 random bits need no slow hash.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field

PREFIX = "mr_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID, _SECRET, _CHECKSUM = 12, 43, 6
_SHAPE = re.compile(rf"mr_([0-9A-Za-z]{{{_ID}}})_[0-9A-Za-z]{{{_SECRET + _CHECKSUM}}}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A new key: `text` is shown once and stored nowhere."""

    id: str
    text: str = field(repr=False)

    @property
    def hash(self) -> bytes:
        """What is stored of it."""
        return hash_of(self.text)


def mint() -> ApiKey:
    """A new key."""
    key_id, secret = _random(_ID), _random(_SECRET)
    body = f"{PREFIX}{key_id}_{secret}"
    return ApiKey(key_id, body + _checksum(body))


def looks_like_key(text: str) -> bool:
    """Whether the text says that it is an API key."""
    return text.startswith(PREFIX)


def is_well_formed(text: str) -> bool:
    """Whether shape and checksum are right, so that it is worth looking up."""
    body, checksum = text[:-_CHECKSUM], text[-_CHECKSUM:]
    return _SHAPE.fullmatch(text) is not None and _checksum(body) == checksum


def hash_of(text: str) -> bytes:
    """SHA-256 of a key's or refresh token's text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _checksum(body: str) -> str:
    value, digits = zlib.crc32(body.encode("utf-8", "surrogatepass")), ""
    for _ in range(_CHECKSUM):
        value, digit = divmod(value, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
