"""The drills' own fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import RunningCell
from tests.reliability.drill import Drill


@pytest.fixture(scope="package")
def changed(cell: RunningCell) -> Iterator[Drill]:
    """The shared cell as the last drill left it; it gets its own config back after all of them."""
    found = Drill(cell)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def drill(changed: Drill) -> Drill:
    """The shared cell under its own config, for a module."""
    changed.reset()
    return changed
