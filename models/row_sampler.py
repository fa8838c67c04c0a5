"""What one sequence brings to sampling. Pure Python: it is made before MLX is loaded."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from models.generation import Sampling

INVALID = -1  # in place of a token whose logits hold NaN


@dataclass(slots=True)
class RowSampler:
    """What one sequence brings to sampling: its parameters, its generator, its token counts."""

    sampling: Sampling
    index: int = 0
    counts: dict[int, int] = field(default_factory=dict)
    _random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        if self.sampling.seed is not None:
            self._random = random.Random((self.sampling.seed << 8) + self.index)

    @property
    def is_greedy(self) -> bool:
        return self.sampling.temperature < 1e-5

    @property
    def is_filtered(self) -> bool:
        s = self.sampling
        return not self.is_greedy and (s.top_p < 1 or s.top_k > 0 or s.min_p > 0)

    @property
    def is_penalised(self) -> bool:
        return bool(self.sampling.presence_penalty or self.sampling.frequency_penalty)

    def draw(self) -> float:
        """The next number in [0, 1) of this row."""
        return 0.0 if self.is_greedy else self._random.random()

    def count(self, token: int) -> None:
        """Remember a token of the answer, for the penalties."""
        if self.is_penalised:
            self.counts[token] = self.counts.get(token, 0) + 1
