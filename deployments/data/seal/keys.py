"""The site keys: `site_keys.json` in the secrets folder, the one file that records depend on.

A site key wraps data keys and nothing else. The index key, for blind search tokens, never rotates.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets as random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from deployments.data.durable import replace_file
from deployments.data.seal.errors import SiteKeysError

FILE = "site_keys.json"
# The escrow's copy of the keys, beside them; see escrow.py.
BUNDLE = "escrow_bundle.json"
KEY_BYTES = 32
_LOCK = "site_keys.lock"
_ID_DOMAIN = b"medrec/site-key-id/1\0"


@dataclass(frozen=True, slots=True)
class SiteKey:
    """One wrapping key of 256 bits; its id is a one-way fingerprint of it."""

    id: str
    secret: bytes
    created: str

    def __repr__(self) -> str:
        return f"SiteKey({self.id})"


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """What the file holds. `rotating_from` names the key that a rotation is getting rid of."""

    current: str
    keys: Mapping[str, SiteKey]
    index: bytes
    rotating_from: str | None = None

    def __repr__(self) -> str:
        return f"SiteKeys(current={self.current}, keys={sorted(self.keys)})"

    def with_new_current(self) -> SiteKeys:
        """The same with a fresh current key; the one that was current stays as an old one."""
        key = self._newer_key()
        return replace(
            self, current=key.id, keys={**self.keys, key.id: key}, rotating_from=self.current
        )

    def without(self, ids: set[str]) -> SiteKeys:
        """The same without old keys, and with no rotation going on."""
        kept = {name: key for name, key in self.keys.items() if name not in ids - {self.current}}
        return replace(self, keys=kept, rotating_from=None)

    def dump(self) -> bytes:
        """The file's bytes."""
        keys = {
            key.id: {"key": base64.b64encode(key.secret).decode(), "created": key.created}
            for key in self.keys.values()
        }
        values = {
            "current": self.current,
            "keys": keys,
            "index": base64.b64encode(self.index).decode(),
            "rotating_from": self.rotating_from,
        }
        return json.dumps(values, indent=1).encode()

    def _newer_key(self) -> SiteKey:
        """A fresh key, later than every one here by any clock: the latest is current in each cell."""
        key = new_key()
        newest = max(datetime.fromisoformat(entry.created) for entry in self.keys.values())
        made = max(datetime.fromisoformat(key.created), newest + timedelta(seconds=1))
        return replace(key, created=made.isoformat(timespec="seconds"))


def new_key() -> SiteKey:
    """A fresh random site key."""
    secret = random.token_bytes(KEY_BYTES)
    return SiteKey(key_id(secret), secret, datetime.now(UTC).isoformat(timespec="seconds"))


def key_id(secret: bytes) -> str:
    """The id of a key: 64 bits of a one-way fingerprint, so that a file cannot confuse two keys."""
    return hashlib.sha256(_ID_DOMAIN + secret).hexdigest()[:16]


def new_site_keys() -> SiteKeys:
    """A first key and a fresh index key."""
    key = new_key()
    return SiteKeys(key.id, {key.id: key}, random.token_bytes(KEY_BYTES))


def parse(data: bytes, origin: str) -> SiteKeys:
    """The keys in `data`; raises `SiteKeysError` that names `origin` and quotes nothing of it."""
    try:
        raw = json.loads(data)
        keys = {name: _key(name, entry) for name, entry in raw["keys"].items()}
        found = SiteKeys(raw["current"], keys, _secret(raw["index"]), raw.get("rotating_from"))
        if found.current not in keys:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SiteKeysError(f"{origin} is damaged: medrec seal recover rebuilds it") from None
    return found


def _key(name: str, entry: dict[str, Any]) -> SiteKey:
    secret = _secret(entry["key"])
    if key_id(secret) != name:
        raise ValueError
    return SiteKey(name, secret, str(entry["created"]))


def _secret(text: str) -> bytes:
    secret = base64.b64decode(text, validate=True)
    if len(secret) != KEY_BYTES:
        raise ValueError
    return secret


def path_of(secrets: Path) -> Path:
    """Where the file lies."""
    return secrets / FILE


def read(secrets: Path) -> SiteKeys:
    """The keys on disk. Raises `SiteKeysError` if there are none, or if others can read them."""
    path = path_of(secrets)
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise SiteKeysError(f"{path} can be read by others than its owner: chmod 600 it")
            data = stream.read()
    except FileNotFoundError:
        message = f"there are no site keys at {path}: medrec seal init makes new ones for a new"
        raise SiteKeysError(
            f"{message} installation, medrec seal recover rebuilds lost ones"
        ) from None
    except OSError as error:
        raise SiteKeysError(f"{path} cannot be read: {error.strerror}") from error
    return parse(data, str(path))


def write(secrets: Path, keys: SiteKeys) -> None:
    """Replace the file in one step, on disk when this returns."""
    replace_file(path_of(secrets), keys.dump())


def prepare(folder: Path) -> None:
    """Make the folder if need be, for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def lock(secrets: Path) -> Iterator[None]:
    """Hold the file for a change. Raises `SiteKeysError` if another process is changing it."""
    prepare(secrets)
    handle = os.open(secrets / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SiteKeysError("another medrec seal is changing the site keys") from None
        yield
    finally:
        os.close(handle)


def create(secrets: Path) -> SiteKeys:
    """Make the first site keys. Raises `SiteKeysError` if there are any already."""
    with lock(secrets):
        if path_of(secrets).exists():
            raise SiteKeysError(f"there are site keys at {path_of(secrets)} already")
        keys = new_site_keys()
        write(secrets, keys)
        return keys


def ensure_site_keys(secrets: Path) -> bool:
    """For a demo's first start: make site keys unless there are some; tells whether it did.

    Raises `SiteKeysError` where there were some before: new ones would open nothing.
    """
    prepare(secrets)
    if path_of(secrets).exists():
        read(secrets)
        return False
    if (secrets / BUNDLE).exists():
        raise SiteKeysError(f"{path_of(secrets)} is lost: medrec seal recover rebuilds it")
    create(secrets)
    return True
