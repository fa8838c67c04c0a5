"""What can be wrong with a model store. All of it is the operator's to act on."""

from __future__ import annotations

from deployments.cell.state import CellError


class StoreError(CellError):
    """A model, a version or a file is missing, damaged or not to be had; the message names it."""


class Busy(StoreError):
    """Another command works on the same model."""


class PeerError(StoreError):
    """The other cell does not answer, or not with what was asked for."""
