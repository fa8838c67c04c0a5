"""Doing again what the database's failover broke off, until the request's own deadline.

Only whole pieces of work that begin with a transaction and commit at most one are repeated:
`Interrupted` says that this one wrote nothing. A new transaction waits for the server by itself.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from deployments.data.errors import CommitUnknown, DataError, Interrupted

# Between two attempts, so that a server which breaks every transaction is not asked in a loop.
_PAUSE_S = (0.05, 0.25)

S = TypeVar("S")
P = ParamSpec("P")
T = TypeVar("T")


class Timed(Protocol):
    """A caller or origin: what has a deadline, a moment of `time.monotonic()`."""

    @property
    def deadline(self) -> float: ...


D = TypeVar("D", bound=Timed)


async def repeat(
    work: Callable[[], Awaitable[T]], *, deadline: float, even_unknown: bool = False
) -> T:
    """What `work` returns, begun anew where the database went away under it.

    `even_unknown`: also after `CommitUnknown`, because work that has happened finds itself done (by
    an idempotency key, or ids given beforehand). If then it fails for good, its fate stays unknown.
    """
    unknown: CommitUnknown | None = None
    while True:
        try:
            return await work()
        except CommitUnknown as error:
            if not even_unknown or time.monotonic() >= deadline:
                raise
            unknown = error
        except DataError as error:
            if not isinstance(error, Interrupted) or time.monotonic() >= deadline:
                raise unknown or error from None
        await asyncio.sleep(random.uniform(*_PAUSE_S))


def repeated(
    method: Callable[Concatenate[S, D, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, D, P], Coroutine[Any, Any, T]]:
    """The method, by `repeat`, until the deadline of its first argument, a caller or origin."""

    @functools.wraps(method)
    async def until_its_deadline(self: S, who: D, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await repeat(lambda: method(self, who, *args, **kwargs), deadline=who.deadline)

    return until_its_deadline
