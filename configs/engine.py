"""The settings of a language engine, as `engine:` holds them in a Ray Serve config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class EngineConfig(BaseModel):
    """How one language engine schedules its work. Defaults suit a small machine."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    max_running: int = Field(
        default=64, ge=1, le=1024, description="Sequences in prefill or decode at once."
    )
    max_queued: int = Field(
        default=256, ge=1, le=100_000, description="Sequences that may wait; the next is refused."
    )
    kv_cache_gb: float = Field(
        default=1.0, gt=0, description="Admission: estimated KV of all running sequences, in GB."
    )
    prefix_cache_gb: float = Field(
        default=0.25, ge=0, description="KV kept for reuse, least recently used out first, in GB."
    )
    max_context: int | None = Field(
        default=None, ge=16, description="Tokens of prompt and answer; the model's own when unset."
    )
    default_max_tokens: int = Field(
        default=1024, ge=1, description="Answer tokens when the request names no maximum."
    )
    prefill_chunk: int = Field(
        default=512, ge=16, le=8192, description="Largest prefill chunk, in tokens."
    )
    prefill_gap_factor: float = Field(
        default=2.0,
        gt=0,
        le=100,
        description="While others decode, a prefill slice may take this many decode steps' time.",
    )
    padding_budget_mb: float | None = Field(
        default=None,
        gt=0,
        description="KV padding that one decode batch may read; the weights' own size when unset.",
    )
    stream_interval_ms: float = Field(
        default=20.0,
        ge=0,
        le=1000,
        description="How long tokens are gathered before they are sent.",
    )
    threads: int = Field(
        default=1, ge=1, le=64, description="BLAS threads on a CPU; unused on a GPU."
    )
    dtype: str | None = Field(
        default=None,
        pattern="^(float32|float16|bfloat16)$",
        description="Cast floating weights to this type at load; as stored when unset.",
    )
