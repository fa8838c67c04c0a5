"""What mlx-lm itself answers greedily, and how sure it was of each token."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import mlx_lm
import numpy as np
from mlx_lm.generate import generate_step

PARTING_MARGIN = 1e-3


class Reference:
    """mlx-lm's own generation, one sequence at a time, on the same weights."""

    def __init__(self, folder: Path) -> None:
        self.model, self.tokenizer = mlx_lm.load(str(folder))
        self.stop = set(self.tokenizer.eos_token_ids)

    def greedy(self, prompt: list[int], max_tokens: int) -> tuple[list[int], list[float]]:
        """The answer's tokens (a stop token last, if it came) and each one's margin over the second."""
        tokens: list[int] = []
        margins: list[float] = []
        for token, logprobs in generate_step(mx.array(prompt), self.model, max_tokens=max_tokens):
            best = mx.topk(logprobs, 2)
            margins.append(abs(float(np.array(best[0] - best[1]))))
            tokens.append(int(token))
            if tokens[-1] in self.stop:
                break
        return tokens, margins


def first_parting(ours: list[int], theirs: list[int]) -> int | None:
    """The index of the first token in which two answers differ, or None."""
    for i in range(max(len(ours), len(theirs))):
        if i >= len(ours) or i >= len(theirs) or ours[i] != theirs[i]:
            return i
    return None
