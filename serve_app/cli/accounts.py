"""What `medrec user` and `medrec key` share: the config's places, and refusals as messages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from configs.args import RecordsArgs
from configs.reader import load
from deployments.cell import state
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.accounts.administration import Administration, administration
from deployments.data.errors import DataError
from deployments.data.places import Places, places

T = TypeVar("T")


def records_of(config: Path) -> tuple[RecordsArgs, Places]:
    """How and where a config keeps records. Raises `ConfigError` and `CellError`."""
    args = records_args(load(config))
    if args is None:
        raise CellError(f"{config} has no application that keeps records")
    return args, places(args, state.home())


def run(config: Path, work: Callable[[Administration, RecordsArgs], Awaitable[T]]) -> T:
    """Do `work` as the operator at this terminal. Raises `CellError` in words."""
    args, found = records_of(config)

    async def once() -> T:
        async with administration(found, args.organization) as desk:
            return await work(desk, args)

    try:
        return asyncio.run(once())
    except DataError as error:
        raise CellError(error.message) from None
