"""Another version for a model: verified, rolled out where a cell runs, and only then made current.

The links name what a cell starts with. They move last, so that whatever fails before leaves the old
version current; a replica keeps the version that it was deployed with, whatever the links say.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from contextlib import suppress

from deployments.cell.state import CellError
from deployments.site.models import staging
from deployments.site.models.errors import StoreError
from deployments.site.models.mending import insist_on_whole
from deployments.site.models.store import PREVIOUS, Model

Roll = Callable[[str], None]


def nowhere(version: str) -> None:
    """No cell runs: there is nothing to roll."""


def switch(model: Model, text: str, roll: Roll = nowhere) -> str:
    """Make the version that `text` names current; returns it. `roll` deploys a version and waits.

    Raises `StoreError` for a version that is not whole, and what `roll` raises; either leaves the old
    version current, and the cell is told to go back to it.
    """
    with model.lock():
        version = model.find(text)
        _deploy(model, version, roll)
        model.advance(version)
    return version


def roll_back(model: Model, roll: Roll = nowhere) -> str:
    """Exchange current and previous, by the same steps and with the same errors as `switch`."""
    with model.lock():
        version = model.find(PREVIOUS)
        if version == model.current:
            raise StoreError(f"{model.name} has no previous version: name one to switch to")
        _deploy(model, version, roll)
        model.go_back()
    return version


def prune(model: Model, deployed: Collection[str]) -> list[str]:
    """Remove every version but current, previous and those `deployed` now. Returns what went.

    Before the first switch nothing is removed: none is known to be superfluous.
    """
    with model.lock():
        staging.clear_drafts(model)
        if model.current is None:
            return []
        kept = {model.current, model.previous, *deployed}
        gone = [version for version in model.versions() if version not in kept]
        for version in gone:
            # Under a draft's name first: what a crash leaves is no version any more.
            with staging.draft(model) as folder:
                model.path_of(version).rename(folder / version)
                shutil.rmtree(folder, ignore_errors=True)
    return gone


def _deploy(model: Model, version: str, roll: Roll) -> None:
    insist_on_whole(model, version)
    before = model.current
    try:
        roll(version)
    except BaseException as error:
        if before is not None and before != version:
            # Its replicas are still there: a version that does not start replaces none.
            with suppress(CellError):
                roll(before)
        if isinstance(error, CellError):
            kept = f"; {model.name} stays at {before[:12]}" if before else ""
            raise StoreError(f"{model.name} {version[:12]} does not run: {error}{kept}") from error
        raise
