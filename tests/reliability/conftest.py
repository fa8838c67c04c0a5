"""The drills' own fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import RunningCell
from tests.reliability.drill import Drill


@pytest.fixture(scope="module")
def drill(cell: RunningCell) -> Iterator[Drill]:
    """The shared cell, which gets its own config back at the end of the module."""
    found = Drill(cell)
    try:
        yield found
    finally:
        found.close()
