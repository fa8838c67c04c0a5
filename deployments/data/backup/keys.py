"""The backup key, in two files: who writes backups need not be able to read them.

`backup_key.json` opens everything and is what a restore on a bare machine needs. PostgreSQL's
archiver, under its own account, has `backup_writer.json` only: the public key (X25519), and the
stamp, a secret without which nobody can make an object that would be taken for one of ours.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from deployments.data.backup.errors import BackupError, Damaged
from deployments.data.durable import replace_file

FILE = "backup_key.json"
WRITER_FILE = "backup_writer.json"
ID_BYTES = 8
SEED_BYTES = 32
SEALED_SEED_BYTES = 32 + SEED_BYTES + 16  # HPKE's encapsulated key, ciphertext and tag
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_ID = b"medrec/backup-key-id/1\0"
_SEED = b"medrec/backup-seed/1\0"
_DATA = b"medrec/backup-data/1\0"
_TAG = b"medrec/backup-tag/1\0"


@dataclass(frozen=True, slots=True)
class WriterKey:
    """Seals. `public` is not secret, `stamp` is."""

    public: bytes
    stamp: bytes = field(repr=False)

    @property
    def id(self) -> bytes:
        """A one-way fingerprint, in every object's header."""
        return hashlib.sha256(_ID + self.public + self.stamp).digest()[:ID_BYTES]

    def new_data_key(self) -> tuple[bytes, bytes]:
        """A fresh data key, and the sealed seed from which a reader derives it."""
        seed = os.urandom(SEED_BYTES)
        public = X25519PublicKey.from_public_bytes(self.public)
        return self._derived(seed), _SUITE.encrypt(seed, public, _SEED + self.id)

    def tag(self, name: str, plain: bytes) -> bytes:
        """What tells, without opening it, whether an object of this name has this content."""
        content = hashlib.sha256(plain).digest()
        return hmac.digest(self.stamp, _TAG + name.encode() + b"\0" + content, hashlib.sha256)

    def _derived(self, seed: bytes) -> bytes:
        # Without the stamp anybody could seal to the public key, and pass it off as a backup.
        return hmac.digest(self.stamp, _DATA + seed, hashlib.sha256)

    def dump(self) -> bytes:
        """The writer's file."""
        return _encoded({"public": self.public, "stamp": self.stamp})


@dataclass(frozen=True, slots=True)
class BackupKey:
    """Opens and seals."""

    private: bytes = field(repr=False)
    stamp: bytes = field(repr=False)
    created: str

    @property
    def writer(self) -> WriterKey:
        """The half that seals."""
        private = X25519PrivateKey.from_private_bytes(self.private)
        return WriterKey(private.public_key().public_bytes_raw(), self.stamp)

    def data_key(self, sealed_seed: bytes) -> bytes:
        """The data key of an object. Raises `Damaged`."""
        private = X25519PrivateKey.from_private_bytes(self.private)
        writer = self.writer
        try:
            seed = _SUITE.decrypt(sealed_seed, private, _SEED + writer.id)
        except (InvalidTag, ValueError):
            raise Damaged("the sealed key of an object does not open") from None
        return writer._derived(seed)

    def dump(self) -> bytes:
        """The key's file."""
        return _encoded({"private": self.private, "stamp": self.stamp}, created=self.created)


def new() -> BackupKey:
    """A fresh backup key."""
    private = X25519PrivateKey.generate().private_bytes_raw()
    return BackupKey(private, os.urandom(32), datetime.now(UTC).isoformat(timespec="seconds"))


def parse(data: bytes, origin: str) -> BackupKey:
    """The key in `data`. Raises `BackupError` that names `origin` and quotes nothing."""
    try:
        raw = json.loads(data)
        return BackupKey(_secret(raw["private"]), _secret(raw["stamp"]), str(raw["created"]))
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{origin} is no backup key, or a damaged one") from None


def read(secrets: Path) -> BackupKey:
    """The key that opens backups. Raises `BackupError` if it is not there or others can read it."""
    path = secrets / FILE
    return parse(_private(path, "medrec backup init makes one, medrec backup recover"), str(path))


def read_writer(secrets: Path) -> WriterKey:
    """The key that seals them. Raises `BackupError`."""
    path = secrets / WRITER_FILE
    data = _private(path, "medrec backup init makes one, medrec backup recover")
    try:
        raw = json.loads(data)
        return WriterKey(_secret(raw["public"]), _secret(raw["stamp"]))
    except (ValueError, KeyError, TypeError):
        raise BackupError(f"{path} is no backup writer's key, or a damaged one") from None


def write(secrets: Path, key: BackupKey) -> None:
    """Both files. Raises `BackupError` if there is a key already: backups would need the old one."""
    if (secrets / FILE).exists():
        raise BackupError(f"there is a backup key at {secrets / FILE} already")
    replace_file(secrets / FILE, key.dump())
    replace_file(secrets / WRITER_FILE, key.writer.dump())


def _private(path: Path, hint: str) -> bytes:
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise BackupError(f"{path} can be read by others than its owner: chmod 600 it")
            return stream.read()
    except FileNotFoundError:
        raise BackupError(f"there is no backup key at {path}: {hint} rebuilds a lost one") from None
    except OSError as error:
        raise BackupError(f"{path} cannot be read: {error.strerror}") from None


def _secret(text: str) -> bytes:
    secret = base64.b64decode(text, validate=True)
    if len(secret) != 32:
        raise ValueError
    return secret


def _encoded(secrets: dict[str, bytes], **other: str) -> bytes:
    values = {name: base64.b64encode(secret).decode() for name, secret in secrets.items()}
    return json.dumps({**values, **other}, indent=1).encode()
