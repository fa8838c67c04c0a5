"""The one reader of cell configs: YAML in, a checked `CellConfig` out, or a `ConfigError`.

It names file and keys. Everything that can be refused is refused here, before any process starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from configs.args import (
    LOCAL_CONNECTIONS,
    RESERVED_CONNECTIONS,
    LanguageModel,
    RecordsArgs,
    Replicas,
    Resources,
)
from configs.budgets import RESOURCES, Budget, asked, scaled
from configs.cell import (
    APPLICATION_NAMES,
    AiApplication,
    ApiApplication,
    CellConfig,
    DataApplication,
)
from configs.engine import EngineConfig
from configs.machine import machine as this_machine
from configs.weights import FolderError, check_folder

_EPSILON = 1e-6
PROJECT_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; `key` is a dotted path such as `applications[0].args.cell`."""

    key: str
    reason: str


class ConfigError(Exception):
    """The operator's fault: a cell config cannot be used. Every problem found is listed."""

    def __init__(self, file: Path, problems: Sequence[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {p.key}: {p.reason}" for p in self.problems))


@dataclass(frozen=True, slots=True)
class Demand:
    """What one deployment asks of a pool when it has the most replicas that it may have."""

    pool: str
    key: str
    deployment: str
    replicas: Replicas
    resources: Resources

    def peak(self, resource: str) -> float:
        """Amount of one resource at `max + surge` replicas, each rounded up as Ray does."""
        return self.replicas.peak * asked(resource, getattr(self.resources, resource))


def load(
    path: Path | str,
    *,
    machine: Budget | None = None,
    root: Path = PROJECT_ROOT,
) -> CellConfig:
    """Read and check a cell config against `machine` (this one, unless given). `ConfigError`."""
    file = Path(path)
    site = _validated(file, read_yaml(file))
    problems = [
        *_engine_problems(site),
        *_folder_problems(site, root),
        *records_problems(site),
        *budget_problems(demands(site), scaled(machine or this_machine())),
    ]
    if problems:
        raise ConfigError(file, problems)
    return site


def read_values(path: Path | str) -> CellConfig:
    """Read a cell config for what it says alone; whether this machine can run it is `load`'s matter."""
    return _validated(Path(path), read_yaml(Path(path)))


def model_folder(entry: LanguageModel, root: Path = PROJECT_ROOT) -> Path | None:
    """Where an entry's weights lie; None if they come from a repository."""
    return None if entry.path is None else root / Path(entry.path).expanduser()


def read_yaml(file: Path) -> dict[str, Any]:
    """The file as a mapping, as `serve deploy` would send it. Raises `ConfigError`."""
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except OSError as error:
        raise ConfigError(file, [Problem("file", error.strerror or "cannot be read")]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(file, [Problem("file", "is not UTF-8")]) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        reason = getattr(error, "problem", None) or "is not YAML"
        raise ConfigError(file, [Problem(where, reason)]) from error
    if not isinstance(raw, dict):
        raise ConfigError(file, [Problem("file", "is not a mapping of keys")])
    return raw


def demands(site: CellConfig) -> list[Demand]:
    """What every deployment of the config asks of its pool."""
    found: list[Demand] = []
    for index, app in enumerate(site.applications):
        key = f"applications[{index}].args"
        if isinstance(app, AiApplication):
            cell = app.args.cell
            found.append(Demand("ai", f"{key}.cell", "cell", cell.replicas, cell.resources))
            found.extend(
                Demand("ai", f"{key}.language[{i}]", entry.model, entry.replicas, entry.resources)
                for i, entry in enumerate(app.args.language)
            )
        elif isinstance(app, DataApplication):
            data = app.args
            found.append(
                Demand("data", f"{key}.custodian", "custodian", data.replicas, data.custodian)
            )
        else:
            found.append(Demand("api", key, "api", app.args.replicas, app.args.resources))
    return found


def budget_problems(wanted: Sequence[Demand], budgets: Mapping[str, Budget]) -> Iterator[Problem]:
    """A problem for each pool and resource of which the deployments together ask too much."""
    for pool, budget in budgets.items():
        for resource in RESOURCES:
            parts = [d for d in wanted if d.pool == pool and d.peak(resource) > 0]
            total = sum(d.peak(resource) for d in parts)
            given: float = getattr(budget, resource)
            if total <= given + _EPSILON:
                continue
            sums = " + ".join(
                f"{d.deployment} ({d.replicas.max}+{d.replicas.surge})"
                f"×{getattr(d.resources, resource):g}"
                for d in parts
            )
            largest = max(parts, key=lambda d: d.peak(resource))
            yield Problem(
                f"{largest.key}.resources.{resource}",
                f"pool {pool} is asked for {total:g} {resource}, maximum and surge together, "
                f"and has {given:g} on this machine: {sums}",
            )


def records_problems(site: CellConfig) -> Iterator[Problem]:
    """A problem if two applications would keep records by different rules, or in too many ways."""
    found = [
        (f"applications[{index}].args", app)
        for index, app in enumerate(site.applications)
        if isinstance(app, ApiApplication | DataApplication)
    ]
    for key, app in found[1:]:
        first_key, first = found[0]
        for name in RecordsArgs.model_fields:
            if getattr(app.args.records, name) != getattr(first.args.records, name):
                yield Problem(f"{key}.records.{name}", f"differs from {first_key}.records.{name}")
    longest_s = max(
        (a.args.limits.request_timeout_s for _, a in found if a.name == "api"), default=0
    )
    for key, app in found:
        if isinstance(app, DataApplication) and app.args.abandoned_after_s < longest_s + 60:
            reason = f"must be a minute above the API's request_timeout_s ({longest_s:g}) at least"
            yield Problem(f"{key}.abandoned_after_s", reason)
        if not isinstance(app, ApiApplication) or app.args.records.dsn is not None:
            continue
        each, peak = app.args.records.pool_connections, app.args.replicas.peak
        if each * peak > LOCAL_CONNECTIONS - RESERVED_CONNECTIONS:
            yield Problem(
                f"{key}.records.pool_connections",
                f"{peak} replicas with {each} each are {each * peak} database connections, and "
                f"the cell's own PostgreSQL has {LOCAL_CONNECTIONS - RESERVED_CONNECTIONS} for them",
            )


def _validated(file: Path, raw: Mapping[str, Any]) -> CellConfig:
    try:
        return CellConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(file, list(shape_problems(error))) from error


def shape_problems(error: ValidationError, prefix: str = "") -> Iterator[Problem]:
    """What pydantic found wrong, each with the key as the file has it."""
    for found in error.errors(include_url=False, include_context=False):
        location = list(found["loc"])
        # Pydantic puts the chosen member of a union into the path; the file has no such key.
        if len(location) > 2 and location[0] == "applications" and location[2] in APPLICATION_NAMES:
            del location[2]
        yield Problem(_dotted(location, prefix) or "file", _reason(found, location))


def _reason(found: Mapping[str, Any], location: Sequence[str | int]) -> str:
    if found["type"] == "extra_forbidden":
        if location[-1] == "deployments" and len(location) == 3:
            return "overrides of deployments would bypass the budget; set args instead"
        return "unknown key"
    if found["type"] == "missing":
        return "is missing"
    reason = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "value_error" or isinstance(found["input"], dict | list):
        return reason
    return f"{reason}, not {found['input']!r}"


def _dotted(location: Sequence[str | int], prefix: str) -> str:
    text = prefix
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _entries(site: CellConfig) -> Iterator[tuple[str, LanguageModel]]:
    for index, app in enumerate(site.applications):
        if isinstance(app, AiApplication):
            for i, entry in enumerate(app.args.language):
                yield f"applications[{index}].args.language[{i}]", entry


def _engine_problems(site: CellConfig) -> Iterator[Problem]:
    for key, entry in _entries(site):
        try:
            engine = EngineConfig.model_validate(entry.engine)
        except ValidationError as error:
            yield from shape_problems(error, f"{key}.engine")
            continue
        caches_gb = engine.kv_cache_gb + engine.prefix_cache_gb
        if caches_gb >= entry.resources.memory_gb:
            yield Problem(
                f"{key}.engine.kv_cache_gb",
                f"with prefix_cache_gb it is {caches_gb:g} GB, which leaves nothing of "
                f"resources.memory_gb ({entry.resources.memory_gb:g}) for the weights",
            )


def _folder_problems(site: CellConfig, root: Path) -> Iterator[Problem]:
    for key, entry in _entries(site):
        folder = model_folder(entry, root)
        if folder is None:
            continue
        try:
            check_folder(folder)
        except FolderError as error:
            yield Problem(f"{key}.path", str(error))


class _UniqueKeys(yaml.SafeLoader):
    """YAML keeps the last of two equal keys in silence; here the second is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)
