"""Tokens that can be read, in the sealer's place where no secret is at stake."""

from __future__ import annotations


class Readable:
    """Blinds nothing."""

    def blind(self, purpose: str, value: str) -> str:
        return f"{purpose}~{value}"
