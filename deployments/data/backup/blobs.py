"""Blobs in the backup: immutable and sealed already, so each is copied once and never again."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from deployments.data.backup.errors import BackupError, Damaged, NotInBackup
from deployments.data.backup.vault import Vault, part_name
from deployments.data.blobs.files import NAME_LENGTH, path_of
from deployments.data.durable import synchronise, synchronise_folder

_PIECE = 2**20
_AT_A_TIME = 4
# A folder's time is that of its newest name; clocks and file systems are coarser than that.
_MARGIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Copied:
    """Blobs that a pass has copied, and bytes of them."""

    blobs: int
    bytes: int


def stream_name(name: str) -> str:
    """The stream of a blob."""
    return f"blobs/{name[:2]}/{name}"


def copy_new(vault: Vault, folder: Path, *, since: float | None = None) -> Copied:
    """Copy what is not in the backup yet; `since` (Unix time) looks only at what is newer.

    A file that cannot be read keeps no other waiting. Raises `BackupError`, for such a one at the end.
    """
    blobs = size = 0
    unreadable: list[str] = []
    for first in _folders(folder):
        local = {path.name: path for path in _blobs(first, since)}
        if not local:
            continue
        there = {entry.name.split("/")[2] for entry in vault.entries(f"blobs/{first.name}")}
        for name, path in sorted(local.items()):
            # Of a large one that was broken off there are some parts.
            if name in there and _is_whole(vault, name):
                continue
            try:
                size += vault.write_stream(stream_name(name), _pieces(path), compress=False).size
            except FileNotFoundError:
                continue  # erased meanwhile
            except OSError as error:
                unreadable.append(f"{name[:16]}… ({errno.errorcode.get(error.errno or 0, '?')})")
                continue
            blobs += 1
    if unreadable:
        raise BackupError(f"{len(unreadable)} blobs cannot be read: {', '.join(unreadable[:5])}")
    return Copied(blobs, size)


def parts_in(vault: Vault) -> dict[str, int]:
    """Of each blob in the backup how many parts there are, 0 where one before the last is missing."""
    found: dict[str, int] = {}
    for entry in vault.entries("blobs"):
        name = entry.name.split("/")[2]
        count = found.get(name, 0)
        in_turn = entry.name == part_name(stream_name(name), count) and (count or name not in found)
        found[name] = count + 1 if in_turn else 0
    return found


def known(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """The blobs that a database has a row of, and that were not erased, with their stored bytes."""
    there = connection.execute("SELECT to_regclass('records.blob')::text").fetchone()
    if there is None or there[0] is None:
        return {}
    query = "SELECT name, stored_size FROM records.blob WHERE erased_at IS NULL ORDER BY name"
    return dict(connection.execute(query).fetchall())


def names_at(folder: Path) -> list[str]:
    """The names of all blobs in a folder."""
    return [path.name for first in _folders(folder) for path in _blobs(first, None)]


def place(vault: Vault, names: Iterable[str], folder: Path) -> tuple[Copied, list[str]]:
    """Write blobs into a folder, each held to its name, which is its SHA-256.

    Returns what was written, and which of them the backup does not have, or not whole: the others are
    not to wait for those.
    """
    lost: list[str] = []
    written: list[int] = []

    def one(name: str) -> None:
        try:
            written.append(_place(vault, name, path_of(folder, name)))
        except (NotInBackup, Damaged):
            lost.append(name)

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(one, names))
    return Copied(len(written), sum(written)), sorted(lost)


def digest(vault: Vault, name: str) -> str:
    """SHA-256 of a blob as the backup holds it."""
    found = hashlib.sha256()
    for piece in vault.read_stream(stream_name(name)):
        found.update(piece)
    return found.hexdigest()


def _place(vault: Vault, name: str, target: Path) -> int:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft, found, size = target.with_suffix(".part"), hashlib.sha256(), 0
    try:
        with draft.open("wb") as stream:
            for piece in vault.read_stream(stream_name(name)):
                found.update(piece)
                size += stream.write(piece)
            stream.flush()
            synchronise(stream.fileno())
        if found.hexdigest() != name:
            raise Damaged(f"the blob {name[:16]}… is not what its name says")
        draft.chmod(0o600)
        draft.replace(target)
    except BackupError:
        draft.unlink(missing_ok=True)
        raise
    synchronise_folder(target.parent)
    return size


def _is_whole(vault: Vault, name: str) -> bool:
    try:
        return vault.is_whole(stream_name(name))
    except NotInBackup:
        return False


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def _blobs(first: Path, since: float | None) -> Iterator[Path]:
    after = None if since is None else since - _MARGIN_S
    for second in _folders(first):
        if after is not None and second.stat().st_mtime < after:
            continue
        with os.scandir(second) as entries:
            for entry in entries:
                new = after is None or entry.stat().st_mtime >= after
                if len(entry.name) == NAME_LENGTH and new:
                    yield Path(entry.path)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                Path(entry.path) for entry in entries if entry.is_dir() and len(entry.name) == 2
            )
    except FileNotFoundError:
        return []
