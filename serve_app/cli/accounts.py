"""What `medrec user` and `medrec key` share: a desk for the operator at this terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from configs.args import RecordsArgs
from deployments.data.accounts.administration import Administration, administration
from serve_app.cli.whose import site_of, told_plainly

T = TypeVar("T")


def run(config: Path, work: Callable[[Administration, RecordsArgs], Awaitable[T]]) -> T:
    """Do `work` as the operator at this terminal. Raises `CellError` in words."""
    args, found = site_of(config)

    async def once() -> T:
        async with administration(found, args.organization) as desk:
            return await work(desk, args)

    with told_plainly():
        return asyncio.run(once())
