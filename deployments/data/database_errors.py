"""What PostgreSQL's errors mean to a caller: the one table from SQLSTATE to this house's errors.

PostgreSQL's own words quote values, so none of them goes on; its five-letter code does.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.pq import ConnStatus

from deployments.data.errors import (
    Conflict,
    DataError,
    DeadlineExceeded,
    Forbidden,
    Interrupted,
    StoreUnavailable,
)

_RETRY_AFTER_S = 1.0
_READ_ONLY = "25006"
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_SERIALIZATION = {"40001", "40P01"}
_EXPIRED = {"57014", "25P03", "25P04"}
# It shuts down, crashed, starts, idles us out.
_INTERRUPTED = {"57P01", "57P02", "57P03", "57P05"}
_UNAVAILABLE = {
    *("53000", "53100", "53200", "53300", "53400"),  # out of disk, memory, connections, limits
    "55P03",  # a lock that somebody holds for long: a migration
}


def lost(connection: psycopg.AsyncConnection[Any], error: psycopg.Error) -> bool:
    """Whether the connection broke: what was asked of the server last may have happened."""
    return (
        connection.closed
        or connection.pgconn.status == ConnStatus.BAD
        or (isinstance(error, psycopg.OperationalError) and error.sqlstate is None)
    )


def moved(error: psycopg.Error, *, read_only: bool) -> bool:
    """Whether the server takes writes no more: another is the primary now, or will be soon."""
    return error.sqlstate == _READ_ONLY and not read_only


def refusal(error: psycopg.Error, *, expired: bool, read_only: bool = False) -> DataError:
    """The error for something that was not committed.

    `expired`: its deadline has passed. `read_only`: it was to write nothing, so that a refused write
    is our own mistake and not a standby's answer.
    """
    state = error.sqlstate or ""
    if state in _SERIALIZATION:
        return Conflict("others changed the same at the same time", code="serialization")
    if state in _EXPIRED or (expired and not state):
        return DeadlineExceeded("the database did not answer in time")
    if (
        moved(error, read_only=read_only)
        or state in _INTERRUPTED
        or state.startswith("08")
        or _is_break(error, state)
    ):
        return Interrupted("the database is not available", retry_after_s=_RETRY_AFTER_S)
    if state in _UNAVAILABLE:
        return StoreUnavailable("the database is not available", retry_after_s=_RETRY_AFTER_S)
    if state == "42501":
        return Forbidden("the database refuses this to the caller")
    if state.startswith("23"):
        return Conflict("it contradicts what the database holds", code="constraint")
    return DataError(f"the database refused a statement ({state or type(error).__name__})")


def _is_break(error: psycopg.Error, state: str) -> bool:
    return not state and isinstance(error, psycopg.OperationalError)
