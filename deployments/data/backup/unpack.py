"""PostgreSQL's data folder from a base backup's tar stream, every file held to PostgreSQL's list."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployments.data import postgres_account
from deployments.data.backup.errors import Damaged
from deployments.data.backup.vault import Stream, Vault

_READ = 2**20
# Of the server that was copied, not of the copy.
_NOT_OURS = ("standby.signal", "recovery.signal", "postmaster.pid", "postmaster.opts")
_LIST = "backup_manifest"


def unpack_base(vault: Vault, stream: Stream, data: Path) -> None:
    """Write the data folder, ready for recovery. Raises `NotInBackup` and `Damaged`."""
    source = Pieces(vault.read_stream(stream.name))
    file = io.BufferedReader(source, _READ)
    try:
        with tarfile.open(fileobj=file, mode="r|", bufsize=_READ) as tar:
            tar.extractall(data, filter="data")
        # To the stream's very end, where its own check is made.
        while file.read(_READ):
            continue
    except tarfile.TarError as error:
        raise Damaged(f"the base backup cannot be unpacked: {error}") from None
    if source.sha256 != stream.sha256:
        raise Damaged("the base backup is not what its manifest says")
    check_files(data)
    for name in _NOT_OURS:
        (data / name).unlink(missing_ok=True)
    (data / "recovery.signal").touch(mode=0o600)
    for path in (data, *data.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
        postgres_account.give(path)
    postgres_account.let_through(data)


def check_files(data: Path) -> None:
    """Hold every file to `backup_manifest`. Raises `Damaged`.

    (The wheel's pg_verifybackup does not run: it crashes at `--version`.)
    """
    try:
        listed = json.loads((data / _LIST).read_bytes())["Files"]
        for entry in listed:
            # A name that is no UTF-8 is given as hexadecimal digits.
            name = entry.get("Path") or bytes.fromhex(entry["Encoded-Path"]).decode("latin-1")
            with (data / name).open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if entry["Checksum-Algorithm"] != "SHA256" or found != entry["Checksum"]:
                raise Damaged(f"{name} of the base backup is not what PostgreSQL copied")
    except (OSError, ValueError, KeyError) as error:
        raise Damaged(f"the base backup is not whole: {type(error).__name__}") from None


class Pieces(io.RawIOBase):
    """Pieces as a file that is read from the front, and what has gone through it."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """SHA-256 of what was read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the front of `buffer`; 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
            self._digest.update(self._rest)
        taken = min(len(buffer), len(self._rest))
        buffer[:taken] = self._rest[:taken]
        self._rest = self._rest[taken:]
        return taken
