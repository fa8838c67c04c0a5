"""The running cell as `medrec models` sees it: what it has deployed, and rolling it to a version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape

from deployments.cell import state
from deployments.cell.serve_api import ServeApi
from deployments.cell.state import CellError
from deployments.site.models import rolling
from deployments.site.models.store import Model


class Roller:
    """Rolls the running cell, if one runs, and knows whether it did."""

    def __init__(self, api: ServeApi | None, model: Model, timeout_s: float) -> None:
        self.is_running, self.rolled = api is not None, False
        self._api, self._model, self._timeout_s = api, model, timeout_s

    def roll(self, version: str) -> None:
        """Deploy a version and wait until it serves alone."""
        if self._api is None:
            return
        console = Console(highlight=False, soft_wrap=True, stderr=True)
        with console.status("rolling") as spinner:
            self.rolled = rolling.roll(
                self._api,
                self._model,
                version,
                timeout_s=self._timeout_s,
                tell=lambda words: spinner.update(escape(words)),
            )


@contextmanager
def roller_of(model: Model, timeout_s: float) -> Iterator[Roller]:
    """A roller for the cell of this home, whether or not one runs."""
    api = _running()
    try:
        yield Roller(api, model, timeout_s)
    finally:
        if api is not None:
            api.close()


@contextmanager
def details() -> Iterator[tuple[CellError | None, dict[str, Any]]]:
    """What Serve says of the running cell, and why it says nothing; neither if none runs."""
    api = _running()
    if api is None:
        yield None, {}
        return
    try:
        try:
            found: tuple[CellError | None, dict[str, Any]] = (None, api.details())
        except CellError as error:
            found = (error, {})
        yield found
    finally:
        api.close()


def _running() -> ServeApi | None:
    home = state.home()
    found = state.read(home)
    if found is None or not found.is_alive:
        return None
    return ServeApi(found.dashboard_url, home.token_file.read_text(encoding="ascii"))
