"""The demo's users: made at the first start of a config that says `demo`, refused by every other.

`<home>/credentials.json`, mode 0600, holds what was made: `base_url`, `api_key`, and `users` with
name, password and role. Later starts keep all of it and put the cell's address of today into it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import psycopg

from configs.args import RecordsArgs
from deployments.cell.state import CellError, Home
from deployments.data.accounts import keys as api_keys
from deployments.data.accounts import passwords, signing
from deployments.data.accounts.administration import NewUser, administration
from deployments.data.accounts.demo_staff import STAFF, ensure_staff
from deployments.data.durable import replace_file
from deployments.data.errors import DataError
from deployments.data.places import Places
from deployments.data.principal import Role
from deployments.data.scopes import parse
from deployments.data.seal import keys as site_keys
from deployments.data.seal.keys import ensure_site_keys

FILE = "credentials.json"
KEY_SCOPES = "system/*.cruds ai ai:decide ai:emergency alerts alerts:raise"
ROLES: tuple[Role, ...] = ("physician", "nurse", "analyst", "auditor", "admin")
# Lies beside keys that a demo's start has made: nobody was told to keep copies of them.
MARK = "made-by-demo"


def at_start(places: Places, args: RecordsArgs, home: Home, base_url: str) -> None:
    """What every start does once the database is migrated. Raises `CellError`."""
    if args.demo and args.mode == "emergency":
        # Its people come with the copy of the site; keys are carried there, or made for a look.
        _ensure_keys(places)
    elif args.demo:
        ensure_demo(places, args, home, base_url)
    else:
        refuse_demo(places)
        # Before anything is deployed: a replica could only fail at it, far from who started it.
        signing.read(places.secrets)
        site_keys.read(places.secrets)


def ensure_demo(places: Places, args: RecordsArgs, home: Home, base_url: str) -> None:
    """Make keys, staff, users and their file, as far as they are not there. Raises `CellError`."""
    _ensure_keys(places)
    file = home.path / FILE
    known = _known(file)
    if known is None or not _is_in_force(places, known):
        try:
            known = asyncio.run(_made(places, args))
        except DataError as error:
            raise CellError(f"the demo's users could not be made: {error.message}") from error
    if known.get("base_url") != base_url or not file.exists():
        known["base_url"] = base_url
        order = ("base_url", "api_key", "users")
        text = json.dumps({name: known[name] for name in order}, indent=1)
        replace_file(file, text.encode())


def _ensure_keys(places: Places) -> None:
    if not signing.exists(places.secrets):
        signing.create(places.secrets, demo=True)
    if ensure_site_keys(places.secrets):
        (places.secrets / MARK).touch(mode=0o600)


def refuse_demo(places: Places) -> None:
    """Raise `CellError` if this database or these secrets were made for a demo."""
    found = []
    with psycopg.connect(places.owner_dsn, connect_timeout=10) as connection:
        rows = connection.execute(
            "SELECT username FROM accounts.account WHERE demo AND NOT disabled ORDER BY username"
        ).fetchall()
        if rows:
            found.append(f"enabled demo accounts ({', '.join(row[0] for row in rows)})")
        rows = connection.execute(
            "SELECT id FROM accounts.api_key WHERE demo AND revoked_at IS NULL"
        ).fetchall()
        if rows:
            found.append(f"active demo keys ({', '.join(row[0] for row in rows)})")
    if signing.exists(places.secrets) and signing.read(places.secrets)[0]:
        found.append(f"a signing key that a demo made ({places.secrets / signing.FILE})")
    if (places.secrets / MARK).exists():
        found.append(f"site keys that a demo made ({places.secrets / MARK} says so)")
    if found:
        raise CellError(
            "this config is not for demos, and here are:\n  "
            + "\n  ".join(found)
            + "\nstart with another MEDREC_HOME or database, or take them away: `medrec user disable"
            " NAME`, `medrec key revoke ID`, `medrec key rotate-signing --own`, `medrec seal rotate`"
            f" (and then remove {MARK})"
        )


def _known(file: Path) -> dict[str, Any] | None:
    """What the file says; None where it is missing or not ours."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        whole = isinstance(known["api_key"], str) and len(known["users"]) == len(ROLES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CellError(f"{file} cannot be read ({type(error).__name__}): remove it") from error
    return known if whole else None


def _is_in_force(places: Places, known: dict[str, Any]) -> bool:
    """Whether the database still has what the file says."""
    names = [user["username"] for user in known["users"]]
    with psycopg.connect(places.owner_dsn, connect_timeout=10) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM accounts.account WHERE demo AND username = ANY(%s)),"
            " EXISTS (SELECT FROM accounts.api_key WHERE demo AND hash = %s"
            " AND revoked_at IS NULL)",
            [names, api_keys.hash_of(known["api_key"])],
        ).fetchone()
    assert row is not None
    return bool(row[0] == len(names) and row[1])


async def _made(places: Places, args: RecordsArgs) -> dict[str, Any]:
    """New demo users and a new key, instead of any before them."""
    organization = args.organization
    await ensure_staff(places, args)
    users = []
    async with administration(places, organization) as desk:
        await desk.remove_demo()
        for role in ROLES:
            password = passwords.generated()
            staff = STAFF.get(role)
            await desk.add_user(
                NewUser(
                    username=role,
                    role=role,
                    organization=organization,
                    password=password,
                    practitioner=staff.id if staff else None,
                    demo=True,
                )
            )
            users.append({"username": role, "password": password, "role": role})
        text = await desk.create_key("demo", parse(KEY_SCOPES), organization, demo=True)
    return {"api_key": text, "users": users}
