"""Proves that the commands that an operator is told in an emergency exist."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import typer.main
from typer.main import get_command

from configs.reader import PROJECT_ROOT
from serve_app.cli import app

PAGES = ("runbook.md", "certificates.md")


def told(page: str) -> Iterator[list[str]]:
    """The words of each `medrec …`, in backticks or at the beginning of a line of a block."""
    text = (PROJECT_ROOT / "docs" / page).read_text()
    for match in re.finditer(r"(?:`|^)medrec ([^`\n#|]+)", text, re.MULTILINE):
        yield match.group(1).split()


@pytest.mark.parametrize("page", PAGES)
def test_a_command_that_is_told_exists_with_its_options(page: str) -> None:
    lines = list(told(page))
    assert len(lines) > 5
    for words in lines:
        command = get_command(app)
        rest = list(words)
        while isinstance(command, typer.core.TyperGroup) and rest:
            assert rest[0] in command.commands, f"{page}: medrec {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        options = {name for parameter in command.params for name in parameter.opts}
        for word in rest:
            if word.startswith("--"):
                assert word in options, f"{page}: medrec {' '.join(words)}: {word}"
