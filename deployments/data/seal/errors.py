"""What can be wrong with sealed content and with the keys; no message holds a key or content."""

from __future__ import annotations

from deployments.cell.errors import CellError
from deployments.data.errors import DataError


class SealBroken(DataError):
    """The operator's concern: sealed content does not open, so it was damaged, moved or swapped.

    Wrong key, changed bytes, missing bytes and content of another record are not told apart.
    """

    code = "seal_broken"


class SiteKeysError(CellError):
    """The operator can act on it: site keys are missing, unreadable, there already, or in use."""
