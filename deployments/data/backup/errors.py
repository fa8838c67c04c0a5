"""What can go wrong with backups, each told in a sentence; no message holds a key or content."""

from __future__ import annotations

from deployments.cell.errors import CellError


class BackupError(CellError):
    """The operator can act on it."""


class NotInBackup(BackupError):
    """There is no object of that name: never written, not yet, or lost."""


class AlreadyThere(BackupError):
    """An object of that name exists, and objects are written once."""


class Damaged(BackupError):
    """An object does not open: changed, moved, cut off, or sealed under another backup key."""
