"""Whose records a command acts on, and refusals as the command line's one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT, load
from deployments.cell import state
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.errors import DataError
from deployments.data.places import Places, places

_LOCAL = PROJECT_ROOT / "configs" / "local.yaml"


def site_of(config: Path | None) -> tuple[RecordsArgs, Places]:
    """How and where records are kept: by `config`, or by the running cell's, or by local.yaml.

    Raises `ConfigError` and `CellError`.
    """
    config = config_of(config)
    args = records_args(load(config))
    if args is None:
        raise CellError(f"{config} keeps no records")
    return args, places(args, state.home())


def config_of(config: Path | None) -> Path:
    """`config` itself, or the running cell's, or local.yaml."""
    if config is not None:
        return config
    running = state.read(state.home())
    if running is None or not running.is_alive or not running.config:
        return _LOCAL
    return Path(running.config)


@contextmanager
def told_plainly() -> Iterator[None]:
    """What the data node refuses, as what the operator is told."""
    try:
        yield
    except DataError as error:
        raise CellError(error.message) from error
