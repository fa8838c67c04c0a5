"""Passkeys (WebAuthn level 3): discoverable, verified by their owner, challenged once.

Neither the name nor a password is asked for at sign-in, so nothing can be guessed and nothing
locked: the way that is preferred.
"""

from __future__ import annotations

import secrets
import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import webauthn
from psycopg import AsyncConnection
from webauthn.helpers import (
    base64url_to_bytes,
    bytes_to_base64url,
    options_to_json_dict,
    parse_authentication_credential_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from webauthn.registration.verify_registration_response import VerifiedRegistration

from configs.args import SignIn
from deployments.data import scopes
from deployments.data.accounts.attempts import Attempts, too_many
from deployments.data.accounts.origin import Journal, Origin
from deployments.data.accounts.sessions import ACCOUNT_COLUMNS, Account, Grant, Opened, Sessions
from deployments.data.audit.entry import entry_of
from deployments.data.database import Database
from deployments.data.errors import Conflict, Forbidden, Invalid, NotFound
from deployments.data.principal import Caller
from deployments.data.repeating import repeated

Connection = AsyncConnection[tuple[Any, ...]]
CHALLENGE_S = 300
MOST_KEYS = 16
# RFC 8176: proof of possession of a hardware- or software-secured key, and user verification.
PASSKEY = ("hwk", "user")

_CHALLENGE = """
WITH stale AS (
    DELETE FROM accounts.challenge WHERE id IN (
        SELECT id FROM accounts.challenge WHERE expires_at < now()
        ORDER BY expires_at LIMIT 4 FOR UPDATE SKIP LOCKED))
INSERT INTO accounts.challenge (id, purpose, account, challenge, expires_at)
VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s))
"""
# Taken is gone: whoever comes second with the same challenge finds none.
_TAKE = """
DELETE FROM accounts.challenge WHERE id = %s AND purpose = %s AND account IS NOT DISTINCT FROM %s
RETURNING challenge, expires_at > now()
"""
_FIND = f"""
SELECT p.public_key, p.sign_count, {ACCOUNT_COLUMNS}
FROM accounts.passkey p JOIN accounts.account a ON a.id = p.account
WHERE p.id = %s FOR UPDATE OF p
"""


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a browser's `navigator.credentials` is given, and the id to answer with."""

    id: str
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Passkey:
    """A registered passkey, as its owner sees it. Times are seconds since 1970."""

    id: str
    name: str
    created_at: float
    last_used_at: float | None


class Passkeys:
    """Registers passkeys and signs in with them."""

    def __init__(
        self,
        database: Database,
        sessions: Sessions,
        journal: Journal,
        settings: SignIn,
        issuer: str,
    ) -> None:
        self._database, self._sessions, self._journal = database, sessions, journal
        self._attempts = Attempts(settings)
        self._site = settings.relying_party_id
        self._origins = settings.relying_party_origins or origins_of(issuer)

    @repeated
    async def begin_registration(self, caller: Caller, username: str) -> Challenge:
        """Options to make a passkey for a signed-in person."""
        async with self._database.transaction(deadline=caller.deadline) as connection:
            cursor = await connection.execute(
                "SELECT id FROM accounts.passkey WHERE account = %s", [caller.principal.id]
            )
            known = [row[0] for row in await cursor.fetchall()]
            if len(known) >= MOST_KEYS:
                message = f"At most {MOST_KEYS} passkeys: remove one first."
                raise Conflict(message, code="too_many_passkeys")
            made = await self._challenge(connection, "register", caller.principal.id)
        options = webauthn.generate_registration_options(
            rp_id=self._site,
            rp_name="Medical Record",
            user_id=uuid.UUID(caller.principal.id).bytes,
            user_name=username,
            challenge=made[1],
            timeout=CHALLENGE_S * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.REQUIRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[PublicKeyCredentialDescriptor(id=key) for key in known],
        )
        return Challenge(made[0], options_to_json_dict(options))

    async def register(
        self, caller: Caller, challenge_id: str, credential: dict[str, Any], name: str
    ) -> Passkey:
        """Keep a new passkey. Raises `Invalid` (`bad_passkey`, `bad_challenge`) or `Conflict`."""
        who = caller.principal
        challenge = await self._taken(caller, challenge_id, "register", who.id)
        try:
            verified = webauthn.verify_registration_response(
                credential=parse_registration_credential_json(credential),
                expected_challenge=challenge,
                expected_rp_id=self._site,
                expected_origin=self._origins,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, TypeError, KeyError, AttributeError):
            raise _bad() from None
        row = await self._kept(caller, verified, name)
        if row is None:
            raise Conflict("This passkey is registered already.", code="passkey_exists")
        passkey = Passkey(bytes_to_base64url(verified.credential_id), name, row[0], None)
        await self._journal.journal(entry_of(caller, "passkey-registered", passkey=passkey.id))
        return passkey

    @repeated
    async def _kept(
        self, caller: Caller, verified: VerifiedRegistration, name: str
    ) -> tuple[Any, ...] | None:
        """When it was kept, as a row; None if it was there before."""
        async with self._database.transaction(deadline=caller.deadline) as connection:
            cursor = await connection.execute(
                "INSERT INTO accounts.passkey (id, account, public_key, sign_count, name)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
                " RETURNING extract(epoch FROM created_at)::float8",
                [
                    verified.credential_id,
                    caller.principal.id,
                    verified.credential_public_key,
                    verified.sign_count,
                    name,
                ],
            )
            return await cursor.fetchone()

    @repeated
    async def begin_sign_in(self, origin: Origin) -> Challenge:
        """Options to sign in with whichever passkey the browser holds. Raises `TooMany`."""
        async with self._database.transaction(
            deadline=origin.deadline, durable=False
        ) as connection:
            taken = await self._attempts.take(connection, origin)
            may = taken.wait_s <= 0
            made = await self._challenge(connection, "sign-in", None) if may else None
        if made is None:
            raise too_many(taken.wait_s)
        options = webauthn.generate_authentication_options(
            rp_id=self._site,
            challenge=made[1],
            timeout=CHALLENGE_S * 1000,
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        return Challenge(made[0], options_to_json_dict(options))

    async def sign_in(
        self,
        challenge_id: str,
        credential: dict[str, Any],
        asked: frozenset[str] | None,
        origin: Origin,
    ) -> Grant:
        """A session of the passkey's owner. Raises `Invalid`, whatever is not right with it."""
        challenge = await self._taken(origin, challenge_id, "sign-in", None)
        account, opened, reason = await self._opened(origin, challenge, credential, asked)
        if opened is None:
            known = account.principal(frozenset()) if account else None
            await self._journal.journal(origin.entry("sign-in", "denied", known, reason=reason))
            raise _bad()
        who = opened.principal
        entry = origin.entry(
            "sign-in", "success", who, session=who.session, methods=list(who.methods)
        )
        await self._journal.journal(entry)
        return self._sessions.granted(opened)

    async def step_up(
        self, caller: Caller, challenge_id: str, credential: dict[str, Any]
    ) -> Opened:
        """The caller's session, as signed in now. Raises `Invalid` or `Forbidden`."""
        challenge = await self._taken(caller, challenge_id, "sign-in", None)
        opened, reason = await self._renewed(caller, challenge, credential)
        if opened is None:
            await self._journal.journal(entry_of(caller, "step-up", "denied", reason=reason))
            raise Forbidden("This passkey is not right for it.", code="wrong_passkey")
        return opened

    @repeated
    async def list(self, caller: Caller) -> list[Passkey]:
        """The caller's passkeys, the oldest first."""
        async with self._database.transaction(
            deadline=caller.deadline, read_only=True
        ) as connection:
            cursor = await connection.execute(
                "SELECT id, name, extract(epoch FROM created_at)::float8,"
                " extract(epoch FROM last_used_at)::float8"
                " FROM accounts.passkey WHERE account::text = %s ORDER BY created_at",
                [caller.principal.id],
            )
            rows = await cursor.fetchall()
        return [Passkey(bytes_to_base64url(row[0]), *row[1:]) for row in rows]

    async def remove(self, caller: Caller, passkey: str) -> None:
        """Forget one of the caller's passkeys. Raises `NotFound`."""
        try:
            key = base64url_to_bytes(passkey)
        except ValueError:
            raise NotFound("There is no such passkey.") from None
        if not await self._removed(caller, key):
            raise NotFound("There is no such passkey.")
        await self._journal.journal(
            entry_of(caller, "account-change", change="passkey-removed", passkey=passkey[:64])
        )

    @repeated
    async def _removed(self, caller: Caller, key: bytes) -> bool:
        async with self._database.transaction(deadline=caller.deadline) as connection:
            cursor = await connection.execute(
                "DELETE FROM accounts.passkey WHERE id = %s AND account::text = %s",
                [key, caller.principal.id],
            )
        return cursor.rowcount > 0

    @repeated
    async def _opened(
        self,
        origin: Origin,
        challenge: bytes,
        credential: dict[str, Any],
        asked: frozenset[str] | None,
    ) -> tuple[Account | None, Opened | None, str]:
        """Whose passkey it is, the session that it opened, and why none if none."""
        opened: Opened | None = None
        async with self._database.transaction(deadline=origin.deadline) as connection:
            account, reason = await self._proved(connection, challenge, credential)
            if account is not None and not reason:
                granted = scopes.ROLE_SCOPES[account.role]
                if asked is not None and not (granted := scopes.narrowed(granted, asked)):
                    raise Invalid("None of these scopes is this role's.", code="bad_scope")
                who = account.principal(granted, PASSKEY)
                opened = await self._sessions.open(connection, who, origin)
        return account, opened, reason

    @repeated
    async def _renewed(
        self, caller: Caller, challenge: bytes, credential: dict[str, Any]
    ) -> tuple[Opened | None, str]:
        """The caller's session, signed in anew, and why not if it is not."""
        opened: Opened | None = None
        async with self._database.transaction(deadline=caller.deadline) as connection:
            account, reason = await self._proved(connection, challenge, credential)
            if account is not None and account.id != caller.principal.id:
                reason = "another-account"
            if account is not None and not reason:
                opened = await self._sessions.step_up(connection, caller.principal, PASSKEY)
        return opened, reason

    async def _challenge(
        self, connection: Connection, purpose: str, account: str | None
    ) -> tuple[str, bytes]:
        challenge_id, challenge = str(uuid.uuid4()), secrets.token_bytes(32)
        await connection.execute(
            _CHALLENGE, [challenge_id, purpose, account, challenge, CHALLENGE_S]
        )
        return challenge_id, challenge

    @repeated
    async def _taken(
        self, asker: Origin | Caller, challenge_id: str, purpose: str, account: str | None
    ) -> bytes:
        """The challenge, which is used up by this. In a transaction of its own: it stays so."""
        async with self._database.transaction(deadline=asker.deadline) as connection:
            cursor = await connection.execute(_TAKE, [challenge_id, purpose, account])
            row = await cursor.fetchone()
        if row is None or not row[1]:
            message = "This challenge is unknown, used or too old: ask for another."
            raise Invalid(message, param="challenge_id", code="bad_challenge")
        return bytes(row[0])

    async def _proved(
        self, connection: Connection, challenge: bytes, credential: dict[str, Any]
    ) -> tuple[Account | None, str]:
        """Whose passkey answered the challenge, and what is wrong with that, if anything is."""
        try:
            parsed = parse_authentication_credential_json(credential)
        except (WebAuthnException, ValueError, TypeError, KeyError, AttributeError):
            return None, "malformed"
        row = await (await connection.execute(_FIND, [parsed.raw_id])).fetchone()
        if row is None:
            return None, "unknown-passkey"
        account = Account(*row[2:])
        handle = parsed.response.user_handle
        if handle is not None and handle != uuid.UUID(account.id).bytes:
            return account, "another-user-handle"
        try:
            verified = webauthn.verify_authentication_response(
                credential=parsed,
                expected_challenge=challenge,
                expected_rp_id=self._site,
                expected_origin=self._origins,
                credential_public_key=bytes(row[0]),
                # A count that does not grow means a copied authenticator, and is refused in there.
                credential_current_sign_count=row[1],
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, TypeError, KeyError, AttributeError):
            return account, "not-verified"
        await connection.execute(
            "UPDATE accounts.passkey SET sign_count = %s, last_used_at = now() WHERE id = %s",
            [verified.new_sign_count, parsed.raw_id],
        )
        return account, "disabled" if account.disabled else ""


def origins_of(issuer: str) -> list[str]:
    """The origins of an issuer: WebAuthn takes no IP address, so loopback is also `localhost`."""
    parts = urlsplit(issuer)
    origins = [f"{parts.scheme}://{parts.netloc}"]
    if parts.hostname in ("127.0.0.1", "::1"):
        origins.append(f"{parts.scheme}://localhost" + (f":{parts.port}" if parts.port else ""))
    return origins


def _bad() -> Invalid:
    message = "The passkey's answer is not valid here."
    return Invalid(message, param="credential", code="bad_passkey")
