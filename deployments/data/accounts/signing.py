"""The keys that sign access tokens (ES256), in one private file: the newest signs, all verify.

`<secrets>/signing_keys.json`, mode 0600: `{"demo": …, "keys": [{"kid", "created", "pem"}]}`. A
replica reads it again when a token names a key that it does not know, at most once a second.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from deployments.cell.state import CellError
from deployments.data.durable import replace_file

FILE = "signing_keys.json"
# Tokens live an hour at most; a rotated key verifies a day longer and is dropped afterwards.
KEPT_S = 86400.0
_LOOK_AGAIN_S = 1.0
_STALE_S = 30.0


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One key; `kid` is its thumbprint (RFC 7638)."""

    kid: str
    created: float
    private: ec.EllipticCurvePrivateKey

    @classmethod
    def fresh(cls, now: float) -> SigningKey:
        """A new key on P-256."""
        return cls.of(ec.generate_private_key(ec.SECP256R1()), now)

    @classmethod
    def of(cls, private: ec.EllipticCurvePrivateKey, created: float) -> SigningKey:
        """A key with its thumbprint."""
        return cls(_thumbprint(_public(private)), created, private)

    def jwk(self) -> dict[str, Any]:
        """The public key as JWKS tells it."""
        return {**_public(self.private), "kid": self.kid, "use": "sig", "alg": "ES256"}


class SigningKeys:
    """The file's keys, as this process knows them."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`now` is Unix time. Raises `CellError` without keys: `medrec key init-signing` makes them."""
        self._file = folder / FILE
        self._clock, self._now = clock, now
        self.demo, self._keys = read(folder)
        self._looked = clock()

    def current(self) -> SigningKey:
        """The key that signs: the newest whose time has come."""
        if self._clock() - self._looked > _STALE_S:
            self._read_again()
        now = self._now()
        begun = [key for key in self._keys.values() if key.created <= now]
        # Under a clock that was put back no time has come: the oldest is known everywhere.
        return max(begun or [min(self._keys.values(), key=_age)], key=_age)

    def find(self, kid: str) -> SigningKey | None:
        """The key of this id, which another process may have made a moment ago."""
        found = self._keys.get(kid)
        if found is None and self._clock() - self._looked > _LOOK_AGAIN_S:
            self._read_again()
            found = self._keys.get(kid)
        return found

    def jwks(self) -> dict[str, Any]:
        """Every key's public part, the newest first."""
        self.current()
        newest_first = sorted(self._keys.values(), key=lambda key: -key.created)
        return {"keys": [key.jwk() for key in newest_first]}

    def _read_again(self) -> None:
        self._looked = self._clock()
        try:
            self.demo, self._keys = read(self._file.parent)
        except CellError:
            return  # The file is being replaced or is gone: what is known goes on.


def read(folder: Path) -> tuple[bool, dict[str, SigningKey]]:
    """Whether a demo made them, and the keys. Raises `CellError`."""
    file = folder / FILE
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        message = (
            f"{file} does not exist: `medrec key init-signing` makes the key that signs tokens"
        )
        raise CellError(message) from None
    except OSError as error:
        raise CellError(f"{file} cannot be read ({type(error).__name__})") from None
    return parse(data, str(file))


def parse(data: bytes, origin: str) -> tuple[bool, dict[str, SigningKey]]:
    """Whether a demo made them, and the keys in `data`. Raises `CellError` that names `origin`."""
    try:
        raw = json.loads(data)
        keys = [_loaded(entry) for entry in raw["keys"]]
        demo = bool(raw["demo"])
    except (ValueError, KeyError, TypeError) as error:
        raise CellError(f"{origin} cannot be read ({type(error).__name__})") from None
    if not keys:
        raise CellError(f"{origin} holds no key: `medrec key init-signing` makes one")
    return demo, {key.kid: key for key in keys}


def exists(folder: Path) -> bool:
    """Whether there is a file of keys."""
    return (folder / FILE).exists()


def create(folder: Path, *, demo: bool, now: float | None = None) -> None:
    """Make the file with its first key, unless it is there already."""
    if not exists(folder):
        _write(folder, demo, [SigningKey.fresh(time.time() if now is None else now)])


def rotate(
    folder: Path, *, own: bool = False, now: float | None = None, delay_s: float = 0.0
) -> str:
    """Add a key, which signs from now on; drop those whose tokens are long over. Its id.

    `own` drops every other: a demo made them, and the file is a demo's no longer. With `delay_s` the
    key verifies at once and signs that much later, so that other cells can be given it before.
    """
    moment = time.time() if now is None else now
    demo, found = read(folder)
    fresh = SigningKey.fresh(moment + delay_s)
    if own:
        _write(folder, False, [fresh])
        return fresh.kid
    _write(folder, demo, _kept([*found.values(), fresh], moment))
    return fresh.kid


def merge(
    folder: Path, demo: bool, theirs: dict[str, SigningKey], now: float | None = None
) -> None:
    """Add another cell's keys to those here, if any; what is long retired is dropped.

    Raises `CellError` if the keys that are here cannot be read.
    """
    moment = time.time() if now is None else now
    ours_demo, ours = read(folder) if exists(folder) else (demo, {})
    kept = _kept(list({**theirs, **ours}.values()), moment)
    if {key.kid for key in kept} != set(ours):
        _write(folder, demo or ours_demo, kept)


def _kept(keys: list[SigningKey], moment: float) -> list[SigningKey]:
    """The keys whose tokens may still be about, oldest first."""
    by_age = sorted(keys, key=_age)
    # A key is retired when the next one began to sign, not when it was made itself.
    kept = [
        key for key, successor in itertools.pairwise(by_age) if successor.created > moment - KEPT_S
    ]
    return [*kept, by_age[-1]]


def _age(key: SigningKey) -> float:
    return key.created


def _write(folder: Path, demo: bool, keys: list[SigningKey]) -> None:
    """Replace the file in one step."""
    entries = [{"kid": key.kid, "created": key.created, "pem": _pem(key)} for key in keys]
    text = json.dumps({"demo": demo, "keys": entries}, indent=1)
    replace_file(folder / FILE, text.encode())


def _pem(key: SigningKey) -> str:
    raw = key.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return raw.decode("ascii")


def _loaded(entry: dict[str, Any]) -> SigningKey:
    private = load_pem_private_key(entry["pem"].encode("ascii"), password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name != "secp256r1":
        raise ValueError("not a key on P-256")
    return SigningKey.of(private, float(entry["created"]))


def _public(private: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    raw = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {name: raw[name] for name in ("kty", "crv", "x", "y")}


def _thumbprint(public: dict[str, Any]) -> str:
    # Its members in lexicographic order without white space: RFC 7638, section 3.
    canonical = json.dumps(public, sort_keys=True, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()
