"""The house has one direction: configs ← models ← deployments ← serve_app (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each room and the rooms that it may import, itself included.
MAY_IMPORT = {
    "configs": {"configs"},
    "models": {"configs", "models"},
    "deployments": {"configs", "models", "deployments"},
    "serve_app": {"configs", "models", "deployments", "serve_app"},
}
ROOMS = {*MAY_IMPORT, "benchmarks", "tests"}
# What an engine must not know of: how it is served, asked and recorded.
KEPT_OUT_OF_MODELS = {"ray", "fastapi", "starlette", "uvicorn", "httpx", "sqlalchemy", "psycopg"}
KEPT_OUT_OF_CONFIGS = KEPT_OUT_OF_MODELS | {"mlx", "mlx_lm"}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import of `file`, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import"
            yield node.lineno, (node.module or "").split(".")[0]


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_run_one_way(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    forbidden = ROOMS - MAY_IMPORT[room]
    if room == "models":
        forbidden |= KEPT_OUT_OF_MODELS
    if room == "configs":
        forbidden |= KEPT_OUT_OF_CONFIGS
    wrong = [
        f"{file.relative_to(ROOT)}:{line} imports {package}"
        for file in files
        for line, package in imported(file)
        if package in forbidden
    ]
    assert not wrong, "\n".join(wrong)


def test_every_top_level_folder_with_code_is_a_room() -> None:
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders == ROOMS
