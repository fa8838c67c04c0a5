"""Every setting, as the documents show it: `python -m configs.reference` those of a cell config
(docs/configuration.md), `python -m configs.reference site` those of a site file (docs/site.md)."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from configs.cell import (
    AiApplication,
    ApiApplication,
    CellConfig,
    DataApplication,
    HttpOptions,
    LoggingConfig,
)
from configs.engine import EngineConfig
from configs.site import Site

# Where each block stands in the file. A union and a dictionary cannot be followed by their types.
BLOCKS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", CellConfig),
    ("http_options.", HttpOptions),
    ("logging_config.", LoggingConfig),
    ("applications[ai].", AiApplication),
    ("applications[ai].args.language[].engine.", EngineConfig),
    ("applications[data].", DataApplication),
    ("applications[api].", ApiApplication),
)
_FOLLOWED_BY_A_BLOCK = {"http_options", "logging_config", "applications"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of a cell config."""

    key: str
    default: str
    meaning: str

    def row(self) -> str:
        """The line of a Markdown table."""
        return f"| `{self.key}` | {self.default} | {self.meaning} |"


def settings() -> Iterator[Setting]:
    """Every key of a cell config, block by block."""
    for prefix, model in BLOCKS:
        yield from _of(model, prefix)


def site_settings() -> Iterator[Setting]:
    """Every key of a site file."""
    yield from _of(Site, "")


def table(found: Iterable[Setting]) -> str:
    """Settings as one Markdown table."""
    head = ["| setting | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*head, *(setting.row() for setting in found)])


def _of(model: type[BaseModel], prefix: str) -> Iterator[Setting]:
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        yield Setting(key, _default(field), field.description or "")
        inner, is_list = _inner(field.annotation)
        if inner is not None and name not in _FOLLOWED_BY_A_BLOCK:
            yield from _of(inner, f"{key}[]." if is_list else f"{key}.")


def _inner(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it holds a list of them."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _inner(typing.get_args(annotation)[0])
    if origin is dict:
        return _inner(typing.get_args(annotation)[1])[0], True
    if origin is list:
        return _inner(typing.get_args(annotation)[0])[0], True
    if origin in (typing.Union, types.UnionType):
        return None, False
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return (annotation if is_model else None), False


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "none"
    if isinstance(field.default, BaseModel):
        return "see below"
    if field.default is None:
        return "unset"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:g}" if isinstance(field.default, float) else str(field.default)


if __name__ == "__main__":
    print(table(site_settings() if sys.argv[1:] == ["site"] else settings()))
