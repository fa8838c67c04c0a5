"""The parts of sign-in, put together for one replica."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from configs.args import EmergencyArgs, SignIn
from deployments.cell import state
from deployments.cell.ports import Ports
from deployments.cell.state import CellError, Home
from deployments.data.accounts.authority import Authority
from deployments.data.accounts.door import Door
from deployments.data.accounts.notices import Notices
from deployments.data.accounts.openid import OpenIdProvider
from deployments.data.accounts.origin import Journal
from deployments.data.accounts.passkeys import Passkeys
from deployments.data.accounts.passwords import Hashing
from deployments.data.accounts.sessions import Sessions
from deployments.data.accounts.sign_in import SignIns
from deployments.data.accounts.signing import SigningKeys
from deployments.data.accounts.tokens import Tokens
from deployments.data.database import Database


@dataclass(frozen=True, slots=True)
class Accounts:
    """What sign-in is made of. It is closed with the replica."""

    settings: SignIn
    issuer: str
    authority: Authority
    keys: SigningKeys
    tokens: Tokens
    sessions: Sessions
    sign_ins: SignIns
    passkeys: Passkeys
    hashing: Hashing
    provider: OpenIdProvider | None
    notices: Notices

    async def start(self) -> None:
        """Begin to listen for revocations; waits for no database."""
        self.notices.begin()

    async def close(self) -> None:
        """End the listening, and the threads that hash."""
        await self.notices.end()
        self.hashing.close()


def open_accounts(
    settings: SignIn,
    issuer: str,
    secrets: Path,
    database: Database,
    journal: Journal,
    *,
    demo: bool,
    emergency: EmergencyArgs | None = None,
) -> Accounts:
    """Raises `CellError` without signing keys, or with a provider that is not wholly configured.

    Without `demo` a demo's signing key is refused here, and a demo's users and keys at each request.
    `emergency` is given on an emergency cell.
    """
    keys = SigningKeys(secrets)
    if keys.demo and not demo:
        raise CellError("the signing key was made by a demo: medrec key rotate-signing --own")
    tokens = Tokens(keys, issuer, settings.access_token_s)
    provider = _provider(settings)
    door = Door(emergency.users) if emergency is not None else None
    sessions = Sessions(database, tokens, journal, settings, door)
    hashing = Hashing()
    authority = Authority(tokens, database, provider, demo=demo, emergency=emergency is not None)
    return Accounts(
        settings=settings,
        issuer=issuer,
        authority=authority,
        keys=keys,
        tokens=tokens,
        sessions=sessions,
        sign_ins=SignIns(database, sessions, hashing, journal, settings, door),
        passkeys=Passkeys(database, sessions, journal, settings, issuer),
        hashing=hashing,
        provider=provider,
        notices=Notices(database.dsn, authority),
    )


def issuer_of(settings: SignIn, home: Home) -> str:
    """The tokens' issuer: as configured, else where the cell of this home is reached."""
    if settings.issuer is not None:
        return settings.issuer
    found = state.read(home)
    port = found.ports.public if found is not None else Ports().public
    return f"http://127.0.0.1:{port}"


def _provider(settings: SignIn) -> OpenIdProvider | None:
    if settings.openid_issuer is None:
        return None
    if settings.openid_audience is None:
        raise CellError("sign_in.openid_issuer needs openid_audience: whose tokens are taken")
    try:
        return OpenIdProvider(
            settings.openid_issuer, settings.openid_audience, settings.openid_role_claim
        )
    except ValueError as error:
        raise CellError(f"sign_in.openid_issuer: {error}") from None
