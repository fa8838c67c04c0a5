"""The backup key in the site keys' escrow: the same holders' shares rebuild it on a bare machine.

What it takes lies in the backup itself, in the open: the key sealed to the escrow's public key.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from deployments.data.backup import keys
from deployments.data.backup.errors import BackupError
from deployments.data.backup.settings import BackupSettings
from deployments.data.backup.store import Store
from deployments.data.seal import escrow
from deployments.data.seal.escrow import Bundle

FORMAT = "medrec-backup-escrow-1"
FOLDER = "keys"
_PURPOSE = b"medrec/backup-key-escrow/1\0"


def sealed(key: keys.BackupKey, bundle: Bundle) -> bytes:
    """The key as only enough holders of that escrow can open it."""
    values = {
        "format": FORMAT,
        "bundle": base64.b64encode(bundle.dump()).decode(),
        "key": key.writer.id.hex(),
        "sealed": base64.b64encode(bundle.also_seal(key.dump(), _PURPOSE)).decode(),
    }
    return json.dumps(values, indent=1).encode()


def recover(data: bytes, shares: Sequence[str]) -> keys.BackupKey:
    """The key, from what `sealed` made and the texts of enough shares. Raises `CellError`."""
    try:
        raw = json.loads(data)
        if raw["format"] != FORMAT:
            raise ValueError
        inner = base64.b64decode(raw["bundle"], validate=True)
        closed = base64.b64decode(raw["sealed"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise BackupError("that is no backup key in escrow, or a damaged one") from None
    bundle = escrow.parse_bundle(inner, "the escrow of the backup key")
    plain = escrow.also_open(bundle, shares, closed, _PURPOSE)
    return keys.parse(plain, "the key in escrow")


def sealed_in(settings: BackupSettings) -> list[bytes]:
    """Every backup key in escrow that lies in the backup, the newest first."""
    store = Store(settings)
    found = sorted(store.entries(f"{settings.site}/{FOLDER}"), key=lambda entry: entry.modified)
    return [store.read(entry.name) for entry in reversed(found)]
