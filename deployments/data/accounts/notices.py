"""Revocations as they happen: the database tells every replica what not to remember any longer.

While nothing is heard, what is remembered ages within seconds as it would anyway; when the connection
is back, everything is looked up again, for a notice may be missed.
"""

from __future__ import annotations

from typing import Protocol

from deployments.data.listener import Listener

CHANNEL = "medrec_accounts"
_SESSION = "session "


class Rememberer(Protocol):
    """Who remembers whom it knows: the authority."""

    def session_ended(self, session: str) -> None:
        """One session is over."""

    def changed(self) -> None:
        """Anything may have changed."""


class Notices:
    """Listens for as long as the replica runs."""

    def __init__(self, dsn: str, authority: Rememberer) -> None:
        self._authority = authority
        self._listener = Listener(dsn, CHANNEL, heard=self._heard, back=authority.changed)

    @property
    def is_listening(self) -> bool:
        """Whether a notice would be heard now."""
        return self._listener.is_listening

    def begin(self) -> None:
        """Start to listen, in the background."""
        self._listener.begin()

    async def end(self) -> None:
        """Stop listening."""
        await self._listener.end()

    def _heard(self, payload: str) -> None:
        if payload.startswith(_SESSION):
            self._authority.session_ended(payload.removeprefix(_SESSION))
        else:
            self._authority.changed()
