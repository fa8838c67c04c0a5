"""Which versions a running cell has deployed, and the rolling update to another one.

A deployment is given the version's own folder, never the link to it: a new folder is a new version for
Serve, which rolls, and a replica that dies meanwhile comes back with what it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from configs.reader import PROJECT_ROOT
from deployments.cell.serve_api import ServeApi
from deployments.site.models.store import CURRENT, Model

_PASSED_ON = ("proxy_location", "http_options")


def deployed(details: Mapping[str, Any], model: Model) -> set[str]:
    """The versions of a model that a cell's deployments were given; `current` where it was the link."""
    return {
        Path(entry["path"]).name
        for app in _configs(details)
        for entry in _language(app)
        if _is_of(entry, model)
    }


def with_version(details: Mapping[str, Any], model: Model, version: str) -> dict[str, Any] | None:
    """What the cell runs as a Serve config, with another version; None if nothing serves the model."""
    config: dict[str, Any] = {key: details[key] for key in _PASSED_ON if details.get(key)}
    config["applications"] = deepcopy(list(_configs(details)))
    found = [
        entry for app in config["applications"] for entry in _language(app) if _is_of(entry, model)
    ]
    for entry in found:
        entry["path"] = str(model.path_of(version).resolve())
    return config if found else None


def roll(
    api: ServeApi, model: Model, version: str, *, timeout_s: float, tell: Callable[[str], None]
) -> bool:
    """Deploy a version on the running cell and wait until only it serves. False: no use of it.

    Raises `CellError`.
    """
    config = with_version(api.details(), model, version)
    if config is None:
        return False
    api.deploy(config)
    names = [str(app["name"]) for app in config["applications"]]
    api.wait_running(names, timeout_s=timeout_s, tell=tell, still_alive=lambda: None)
    return True


def _configs(details: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The applications as they were deployed, those without a config left out."""
    for app in details.get("applications", {}).values():
        if (config := app.get("deployed_app_config")) is not None:
            yield config


def _language(app: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = app.get("args", {}).get("language", [])
    return [entry for entry in found if isinstance(entry, dict)]


def _is_of(entry: Mapping[str, Any], model: Model) -> bool:
    if not isinstance(path := entry.get("path"), str):
        return False
    folder = PROJECT_ROOT / Path(path).expanduser()
    below = folder.parent if folder.name == CURRENT else folder.parent.parent
    return below.resolve() == model.folder.resolve()
