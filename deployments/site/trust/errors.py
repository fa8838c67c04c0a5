"""What can be wrong with certificates and with what is sealed to them; no message holds a key."""

from __future__ import annotations

from deployments.cell.state import CellError


class TrustError(CellError):
    """The operator can act on it: a certificate or a key is missing, damaged, foreign or refused."""
