"""The typed arguments of the Serve applications, as the YAML files in this folder write them.

Every model is strict and refuses keys that it does not know, so that a typing error is an error
and not a default. Amounts of resources are those of one replica.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]

_COMMIT = re.compile(r"^[0-9a-f]{40}$")


class Strict(BaseModel):
    """A block of configuration: exact types, no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Resources(Strict):
    """What one replica draws from the budget of its virtual node."""

    memory_gb: Amount = Field(
        description="Memory in GB (2**30 bytes), weights and caches included."
    )
    cpu: Amount = Field(description="CPU cores; fractions are allowed.")
    metal_cores: Amount = Field(default=0.0, description="GPU cores of an Apple chip.")
    neural_cores: Amount = Field(default=0.0, description="Neural Engine cores of an Apple chip.")


class Replicas(Strict):
    """How many replicas a deployment has, and when their number changes."""

    min: int = Field(default=1, ge=1, description="Replicas that are always there.")
    max: int = Field(
        default=1,
        ge=1,
        description="Replicas at full load; `max + surge` of them must fit the budget.",
    )
    target_ongoing_requests: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=12.0,
        description="Requests in progress per replica that the autoscaler steers towards.",
    )
    surge: int = Field(
        default=1,
        ge=1,
        description="Replicas that a rolling update may start beyond `max`.",
    )
    upscale_delay_s: Amount = Field(
        default=3.0, description="Seconds that the load must last before a replica is added."
    )
    downscale_delay_s: Amount = Field(
        default=60.0, description="Seconds that the load must be gone before a replica is stopped."
    )

    @model_validator(mode="after")
    def _max_is_not_below_min(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"max ({self.max}) is below min ({self.min})")
        return self

    @property
    def peak(self) -> int:
        """The most replicas that exist at one time, a rolling update included."""
        return self.max + self.surge


class LanguageModel(Strict):
    """One language model, one deployment. Exactly one of `path` and `repository` is given."""

    model: Name = Field(
        description="The model's one name: its id over HTTP, its deployment, its metric label."
    )
    path: str | None = Field(
        default=None,
        min_length=1,
        description="Folder in mlx-lm's format; relative to the project's root, or absolute.",
    )
    repository: str | None = Field(
        default=None,
        pattern=r"^[\w.-]+/[\w.-]+$",
        description="Model repository, `owner/name`, instead of `path`; needs `revision`.",
    )
    revision: str | None = Field(
        default=None,
        description="The repository's commit, 40 hexadecimal digits: a branch could change.",
    )
    replicas: Replicas = Field(default=Replicas(), description="Number of engine replicas.")
    resources: Resources = Field(description="What one engine replica draws from the `ai` budget.")
    engine: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the language engine; see below."
    )

    @model_validator(mode="after")
    def _one_pinned_source(self) -> LanguageModel:
        if (self.path is None) == (self.repository is None):
            raise ValueError("give either path, or repository with revision")
        if self.repository is not None and not _COMMIT.match(self.revision or ""):
            raise ValueError("repository needs revision, a commit of 40 hexadecimal digits")
        if self.path is not None and self.revision is not None:
            raise ValueError("revision belongs to repository, not to path")
        return self


class CellArgs(Strict):
    """The catalogue and memory guard of the cell: one replica, and one more during an update."""

    resources: Resources = Field(
        default=Resources(memory_gb=0.5, cpu=0.01),
        description="What the catalogue and memory guard draws from the `ai` budget.",
    )
    memory_budget_gb: dict[Literal["ai", "api", "data"], Amount] = Field(
        default_factory=dict,
        description="Memory that the guard allows a virtual node, where that is not the budget "
        "which Ray was started with.",
    )

    @property
    def replicas(self) -> Replicas:
        """Fixed: there is exactly one guard."""
        return Replicas(min=1, max=1, surge=1)


class AiArgs(Strict):
    """Arguments of the application `ai`."""

    cell: CellArgs = Field(default=CellArgs(), description="Catalogue and memory guard.")
    language: list[LanguageModel] = Field(min_length=1, description="The language models served.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> AiArgs:
        names = [entry.model for entry in self.language]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"model given twice: {', '.join(repeated)}")
        if "cell" in names:
            raise ValueError("no model can be called cell: the catalogue's deployment is")
        return self


class Limits(Strict):
    """What the API refuses, and how long it waits."""

    max_body_mb: Annotated[float, Field(gt=0, le=64)] = Field(
        default=4.0, description="Largest request body in MB (2**20 bytes); over it: 413."
    )
    request_timeout_s: Seconds = Field(
        default=600.0, description="Longest time for one request, its stream included; then 504."
    )


class ApiArgs(Strict):
    """Arguments of the application `api`."""

    replicas: Replicas = Field(
        default=Replicas(min=2, max=2, target_ongoing_requests=100.0),
        description="Number of API replicas; each listens on a port of its own.",
    )
    resources: Resources = Field(
        default=Resources(memory_gb=0.5, cpu=0.1),
        description="What one API replica draws from the `api` budget.",
    )
    limits: Limits = Field(default=Limits(), description="Limits of a request.")
