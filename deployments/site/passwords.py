"""The passwords of the database's roles: made once for a site, the same on both of its cells."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from deployments.cell.state import CellError
from deployments.data.durable import replace_file
from deployments.data.postgres import APPLICATION, OWNER

FILE = "database_passwords.json"
SUPERUSER = "postgres"
REPLICATION = "medrec_replication"
REWIND = "medrec_rewind"
COPY = "medrec_copy"
_BYTES = 32


@dataclass(frozen=True, slots=True)
class Passwords:
    """One password for each role; letters, digits, `-` and `_`, so that none needs quoting."""

    superuser: str = field(repr=False)
    owner: str = field(repr=False)
    application: str = field(repr=False)
    replication: str = field(repr=False)
    rewind: str = field(repr=False)
    copy: str = field(repr=False)

    @classmethod
    def made(cls) -> Passwords:
        """New ones, at random."""
        return cls(*(secrets.token_urlsafe(_BYTES) for _ in fields(cls)))

    def dump(self) -> bytes:
        """The file's bytes."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"

    def of(self, role: str) -> str:
        """The password of a role of PostgreSQL."""
        found: str = getattr(self, _NAMES[role])
        return found


_NAMES = {
    SUPERUSER: "superuser",
    OWNER: "owner",
    APPLICATION: "application",
    REPLICATION: "replication",
    REWIND: "rewind",
    COPY: "copy",
}


def read(path: Path) -> Passwords:
    """The passwords in a file. Raises `CellError`, without a word of what is in it."""
    try:
        raw = json.loads(path.read_bytes())
        found = Passwords(**raw)
    except (OSError, ValueError, TypeError) as error:
        raise CellError(f"{path} cannot be read: {type(error).__name__}") from None
    if not all(isinstance(value, str) and value for value in asdict(found).values()):
        raise CellError(f"{path} does not hold a password for every role")
    return found


def read_or_make(path: Path) -> Passwords:
    """The site's passwords, made and written (mode 0600) if there are none. Raises `CellError`."""
    if not path.exists():
        replace_file(path, Passwords.made().dump())
    return read(path)
