"""The gate of `/internal/`: only hosts of the site come in, by the name in their certificates.

HAProxy sets the header after removing what a client sent, and only where it has asked for a host's
certificate; everywhere else it removes the header and refuses the path. An API replica listens on
loopback alone, so whoever could forge the header is on this machine already.
"""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import Scope

HEADER = b"x-medrec-host"
PREFIX = "/internal/"
HOST = "medrec.host"


def is_internal(path: str) -> bool:
    """Whether a path is for the hosts of the site."""
    return path.startswith(PREFIX)


def admit(scope: Scope, callers: frozenset[str]) -> None:
    """Put the calling host's name into the scope; for anybody else there is nothing here (404)."""
    given = [value for name, value in scope["headers"] if name == HEADER]
    host = given[0].decode("latin-1") if len(given) == 1 else ""
    if host not in callers:
        raise HTTPException(404)
    scope[HOST] = host
