"""docs/configuration.md documents every setting, and none that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from configs.cell import CellConfig
from configs.engine import EngineConfig
from configs.reader import PROJECT_ROOT
from configs.reference import settings, site_settings

DOCUMENT = PROJECT_ROOT / "docs" / "configuration.md"


def documented() -> list[str]:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("| `") and line.count("|") == 4]


def test_every_setting_is_documented_as_it_is_now() -> None:
    """If this fails, put the output of `python -m configs.reference` into the document."""
    assert documented() == [setting.row() for setting in settings()]


def test_every_setting_of_a_site_is_documented_as_it_is_now() -> None:
    """If this fails, put the output of `python -m configs.reference site` into docs/site.md."""
    page = (PROJECT_ROOT / "docs" / "site.md").read_text(encoding="utf-8")
    lines = page.partition("## Every setting")[2].splitlines()
    assert [line for line in lines if line.startswith("| `")] == [s.row() for s in site_settings()]


def test_every_setting_has_a_meaning() -> None:
    every = [*settings(), *site_settings()]
    assert [setting.key for setting in every if len(setting.meaning) < 10] == []


def test_no_model_of_a_config_is_left_out() -> None:
    """Found by another way than the table's: in the JSON schema."""
    known = {setting.key.rsplit(".", 1)[-1] for setting in settings()}
    schema = CellConfig.model_json_schema()
    assert set(_properties(schema)) <= known
    assert set(EngineConfig.model_fields) <= known


def _properties(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("properties"), dict):
            yield from schema["properties"]
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)


def test_every_block_is_strict() -> None:
    models: list[type[BaseModel]] = [CellConfig, EngineConfig, *_subclasses(BaseModel)]
    for model in models:
        if model.__module__.startswith("configs.") and model.model_fields:
            assert model.model_config["extra"] == "forbid", model
            assert model.model_config["strict"] is True, model


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for child in model.__subclasses__():
        yield child
        yield from _subclasses(child)
