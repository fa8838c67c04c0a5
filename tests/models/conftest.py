"""The models that the engine's tests share: loaded once, on the test's own thread."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.loading import LoadedModel, load
from tests.models.gemma import DEMO, make_gemma
from tests.models.reference import Reference

WINDOW = 24


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma of 64 hidden units with random weights; its window is shorter than most prompts."""
    return make_gemma(tmp_path_factory.mktemp("gemma") / "tiny", window=WINDOW)


@pytest.fixture(scope="session")
def model(folder: Path) -> LoadedModel:
    """The tiny Gemma as the engine loads it."""
    return load(str(folder))


@pytest.fixture(scope="session")
def reference(folder: Path) -> Reference:
    """The tiny Gemma as mlx-lm runs it."""
    return Reference(folder)


@pytest.fixture(scope="session")
def demo() -> LoadedModel:
    """The demo weights as the engine loads them."""
    return load(str(DEMO))


@pytest.fixture(scope="session")
def demo_reference() -> Reference:
    """The demo weights as mlx-lm runs them."""
    return Reference(DEMO)
