"""Builds the application `ai`: its deployment `cell`, and one for each language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ray import serve
from ray.serve import Application

from configs.args import AiArgs, LanguageModel
from configs.engine import EngineConfig
from configs.reader import ConfigError, Demand, Problem, model_folder
from configs.weights import FolderError, check_folder
from deployments.admission import admit
from deployments.ai.cell import Cell
from deployments.options import serve_options

NAME = "ai"
ROUTER = "deployments.ai.affinity.AffinityRouter"
# The engine keeps its own deadlines; a replica that leaves waits this long for its streams.
DRAIN_S = 600.0
CONTROL_CALLS = 16  # room for `describe` and `memory` beside the chats of a full engine


def build(args: dict[str, Any] | AiArgs) -> Application:
    """The application for `args` (see configs/args.py).

    Raises `ValidationError` for args that are not those of the application, `BudgetsMissing` on a
    Ray without budgets, and `ConfigError` for a demand beyond them or a model folder not in order.
    """
    from deployments.ai.language import Language  # brings MLX with it

    return graph(args, Language)


def graph(args: dict[str, Any] | AiArgs, engine: type) -> Application:
    """`build` with another class in the place of the engine's actor."""
    ai = AiArgs.model_validate(args)
    admit(NAME, demands(ai))
    models = {
        entry.model: _language(index, entry, engine) for index, entry in enumerate(ai.language)
    }
    options = serve_options(
        NAME,
        "cell",
        ai.cell.replicas,
        ai.cell.resources,
        max_ongoing_requests=128,
        max_queued_requests=128,
        request_timeout_s=10.0,
    )
    return serve.deployment(**options)(Cell).bind(models, dict(ai.cell.memory_budget_gb))


def demands(ai: AiArgs) -> list[Demand]:
    """What the application's deployments ask of the virtual node at their most replicas."""
    cell = Demand(NAME, "args.cell", "cell", ai.cell.replicas, ai.cell.resources)
    language = [
        Demand(NAME, f"args.language[{i}]", entry.model, entry.replicas, entry.resources)
        for i, entry in enumerate(ai.language)
    ]
    return [cell, *language]


def _language(index: int, entry: LanguageModel, engine: type) -> Application:
    key = f"args.language[{index}]"
    config = _engine_config(key, entry)
    chats = config.max_running + config.max_queued
    options = serve_options(
        NAME,
        entry.model,
        entry.replicas,
        entry.resources,
        # The engine's own bounded queue refuses first, and says so. Serve's, one in each API
        # replica, holds those that arrive in one instant, and all while no replica is there.
        max_ongoing_requests=chats + CONTROL_CALLS,
        max_queued_requests=chats,
        request_timeout_s=DRAIN_S,
        router=ROUTER,
    )
    return serve.deployment(**options)(engine).bind(
        entry.model, _source(key, entry), dict(entry.engine)
    )


def _engine_config(key: str, entry: LanguageModel) -> EngineConfig:
    try:
        return EngineConfig.model_validate(entry.engine)
    except ValidationError as error:
        problems = [
            Problem(".".join([f"{key}.engine", *map(str, found["loc"])]), found["msg"])
            for found in error.errors()
        ]
        raise ConfigError(Path(f"application {NAME}"), problems) from error


def _source(key: str, entry: LanguageModel) -> str:
    """The model's folder, or `owner/name@commit` of the hub."""
    folder = model_folder(entry)
    if folder is None:
        return f"{entry.repository}@{entry.revision}"
    try:
        check_folder(folder)
    except FolderError as error:
        problem = Problem(f"{key}.path", str(error))
        raise ConfigError(Path(f"application {NAME}"), [problem]) from error
    # Never a link: a replica that comes back must come back with what the others have.
    return str(folder.resolve())
