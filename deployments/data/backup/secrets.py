"""The secrets folder over time: a copy whenever it changes, because a rotation cannot wait for 02:00.

What was sealed under a key of noon needs that key, though the base backup is of the night. So a
restore takes the copy of its moment, and adds the site keys of every other one that it may need.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from deployments.data.backup import folders
from deployments.data.backup.vault import Vault
from deployments.data.seal import keys
from deployments.data.seal.errors import SiteKeysError

FOLDER = "secrets"
_FORMAT = "%Y%m%dT%H%M%SZ"


def keep(vault: Vault, folder: Path, now: datetime) -> bool:
    """Copy the secrets folder, unless the newest copy is the same. Tells whether it did."""
    packed = folders.packed_secrets(folder)
    digest = hashlib.sha256(packed).hexdigest()[:16]
    newest = max((entry.name for entry in vault.entries(FOLDER)), default="")
    if newest.endswith(digest):
        return False
    vault.create(f"{FOLDER}/{now.astimezone(UTC).strftime(_FORMAT)}-{digest}", packed)
    return True


def bring_back(vault: Vault, base: bytes, since: datetime, at: datetime | None, to: Path) -> None:
    """Write the secrets of a moment: the base backup's, or the last copy that is not younger.

    Site keys that only other copies since `since` have are added: without them something might not
    open, with them nothing is lost. Raises `Damaged`.
    """
    names = [entry.name for entry in vault.entries(FOLDER)]
    copies = [base, *(vault.read(name) for name in names if moment_of(name) > since)]
    fitting = [name for name in names if at is None or moment_of(name) <= at]
    chosen = vault.read(fitting[-1]) if fitting and moment_of(fitting[-1]) > since else base
    folders.unpack(chosen, to)
    _add_site_keys(to, copies)


def outdated(names: Sequence[str], oldest: datetime) -> list[str]:
    """Copies that no moment from `oldest` on needs: all before it but the last."""
    before = sorted(name for name in names if moment_of(name) <= oldest)
    return before[:-1]


def moment_of(name: str) -> datetime:
    """When a copy was made."""
    text = name.rpartition("/")[2].partition("-")[0]
    return datetime.strptime(text, _FORMAT).replace(tzinfo=UTC)


def _add_site_keys(to: Path, copies: Sequence[bytes]) -> None:
    every: dict[str, keys.SiteKey] = {}
    for packed in copies:
        if (data := folders.file_in(packed, keys.FILE)) is not None:
            try:
                every.update(keys.parse(data, "a copy of the site keys").keys)
            except SiteKeysError:
                continue  # a damaged one was backed up damaged; `verify` tells
    try:
        mine = keys.read(to)
    except SiteKeysError:
        return
    if every.keys() - mine.keys.keys():
        keys.write(to, replace(mine, keys={**every, **mine.keys}))
