"""What one process of the `engine` benchmark is asked to do, and what it answers: plain JSON."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from benchmarks.prompts import Prompt, Shape, prompts_of

Side = Literal["engine", "batch_generator", "one_at_a_time"]
Scenario = Literal["equal", "mixed", "shared-prefix", "gap", "second-turn", "context"]
THROUGHPUT: tuple[Scenario, ...] = ("equal", "mixed", "shared-prefix")

GAP_CHATS = 16
GAP_PROMPT_TOKENS = 3000
SETTLE_TOKENS = 48
SECOND_TURN_TOKENS = 2000
SECOND_TURN_TALKS = 5
CONTEXT_CHATS = 4
WARM_UP_SEED = 999_983


class Job(BaseModel):
    """One process: a side, a scenario, the weights, and the BLAS threads that every side gets."""

    model_config = ConfigDict(extra="forbid")

    side: Side
    scenario: Scenario
    folder: str
    threads: int
    sequences: int = 32
    context_tokens: int = 0
    seed: int = 1


class Answer(BaseModel):
    """What came out; a scenario fills the fields that it measures. Times in seconds."""

    model_config = ConfigDict(extra="forbid")

    tokens: int = 0
    wall_s: float = 0.0
    undisturbed_gaps_s: list[float] = []
    disturbed_gaps_s: list[float] = []
    prefill_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    cold_first_s: list[float] = []
    warm_first_s: list[float] = []
    peak_memory_gb: float = 0.0
    resident_gb: float = 0.0


@dataclass(frozen=True, slots=True)
class _Lengths:
    """Prompt lengths in words and answer lengths in tokens; drawn independently."""

    words: tuple[int, ...]
    answers: tuple[int, ...]


_LENGTHS: dict[str, _Lengths] = {
    "equal": _Lengths((60,), (128,)),
    "mixed": _Lengths((10, 40, 120, 400), (16, 48, 128, 256)),
    "shared-prefix": _Lengths((24,), (64,)),
}


def throughput_prompts(scenario: Scenario, count: int, seed: int) -> list[Prompt]:
    """The sequences of a throughput scenario, the same for every side."""
    lengths = _LENGTHS[scenario]
    chance = random.Random(f"{scenario}/{seed}")
    shapes = [
        Shape(chance.choice(lengths.words), chance.choice(lengths.answers)) for _ in range(count)
    ]
    return prompts_of(shapes, seed, shared_prefix=scenario == "shared-prefix")


def long_prompt(words: int, seed: int, max_tokens: int) -> Prompt:
    return prompts_of([Shape(words, max_tokens)], seed)[0]
