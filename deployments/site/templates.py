"""The templates of host files in configs/hosts/."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "hosts"


def filled(template: str, /, **values: object) -> str:
    """The template with its values. Raises `jinja2.UndefinedError` where one is missing."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # not markup
    )
