"""Drawn tokens follow the distribution that was asked for, row by row."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from models.generation import Sampling
from models.row_sampler import INVALID, RowSampler
from models.sampling import BatchSampler

LOGITS = [2.0, 1.0, 0.0, -1.0, 3.0, 0.5, -2.0, 1.5]
SIZE = len(LOGITS)


def softmax(logits: list[float], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """Probabilities, in double precision."""
    scaled = np.array(logits, np.float64) / temperature
    e = np.exp(scaled - scaled.max())
    return np.asarray(e / e.sum())


def drawn(
    sampling: Sampling, count: int = 4000, logits: list[float] = LOGITS
) -> np.ndarray[Any, Any]:
    """How often each token came, over many rows with seeds of their own."""
    rows = [RowSampler(Sampling(**_fields(sampling) | {"seed": seed})) for seed in range(count)]
    table = mx.broadcast_to(mx.array(logits), (count, len(logits)))
    tokens = np.array(BatchSampler(rows, len(logits))(table).tokens)
    return np.bincount(tokens, minlength=len(logits))


def _fields(sampling: Sampling) -> dict[str, Any]:
    return {name: getattr(sampling, name) for name in Sampling.__dataclass_fields__}


def host(array: mx.array) -> list[int]:
    """A row of tokens."""
    return [int(token) for token in np.array(array)]


def chi_square(counts: np.ndarray[Any, Any], p: np.ndarray[Any, Any]) -> float:
    """Pearson's statistic over the tokens that can come."""
    expected = p[p > 0] * counts.sum()
    return float(((counts[p > 0] - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_tempered_distribution(temperature: float) -> None:
    counts = drawn(Sampling(temperature=temperature))
    # The 99.9th percentile of chi-square with 7 degrees of freedom.
    assert chi_square(counts, softmax(LOGITS, temperature)) < 24.3


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(top_k=3), {4, 0, 7}),
        (Sampling(top_k=1), {4}),
        # Shares, best first: .49 .18 .11 .07 .04 ...; a token counts while less than p lies before it.
        (Sampling(top_p=0.6), {4, 0}),
        (Sampling(top_p=0.01), {4}),
        (Sampling(top_p=0.0), {4}),
        (Sampling(min_p=0.13), {4, 0, 7, 1}),
        (Sampling(min_p=1.0), {4}),
        (Sampling(top_k=4, top_p=0.7, min_p=0.3), {4, 0}),
        (Sampling(top_k=100), set(range(SIZE))),
    ],
)
def test_filters_keep_exactly_their_sets(sampling: Sampling, kept: set[int]) -> None:
    counts = drawn(sampling)
    assert set(np.nonzero(counts)[0].tolist()) == kept
    p = softmax(LOGITS)
    p[[i for i in range(SIZE) if i not in kept]] = 0
    assert chi_square(counts, p / p.sum()) < 27


def test_rows_of_a_mixed_batch_are_as_they_are_alone() -> None:
    parameters = [
        Sampling(temperature=0.0),
        Sampling(temperature=1.0, seed=1),
        Sampling(temperature=0.8, seed=2, top_k=3),
        Sampling(temperature=1.3, seed=3, top_p=0.8, logit_bias={2: 3.0}),
        Sampling(temperature=0.0, logit_bias={4: -9.0}),
        Sampling(temperature=1.0, seed=4, presence_penalty=1.0, frequency_penalty=0.5),
    ]

    def rows() -> list[RowSampler]:
        return [
            RowSampler(s, counts={4: 2, 0: 1} if i == 5 else {}) for i, s in enumerate(parameters)
        ]

    together = BatchSampler([*rows(), None], SIZE)
    alone = [BatchSampler([row], SIZE) for row in rows()]
    for step in range(40):
        logits = mx.random.normal((len(parameters) + 1, SIZE), key=mx.random.key(step)) * 2
        mixed = np.array(together(logits).tokens)[:-1].tolist()
        apart = [host(one(logits[i : i + 1]).tokens)[0] for i, one in enumerate(alone)]
        assert mixed == apart
        assert mixed[0] == int(np.argmax(np.array(logits[0])))


def test_nan_is_a_rows_own_affair() -> None:
    rows = [RowSampler(Sampling(temperature=t, seed=1)) for t in (0.0, 0.0, 1.0, 1.0)]
    logits = mx.array([LOGITS, LOGITS, LOGITS, LOGITS])
    logits[1, 3] = mx.nan
    logits[3, 0] = mx.nan
    tokens = host(BatchSampler(rows, SIZE)(logits).tokens)
    assert tokens[0] == 4
    assert tokens[1] == tokens[3] == INVALID
    assert tokens[2] in range(SIZE)


def test_logits_of_minus_infinity_are_no_failure() -> None:
    logits = mx.array([[-mx.inf, 1.0, -mx.inf]])
    for temperature in (0.0, 1.0):
        sampler = BatchSampler([RowSampler(Sampling(temperature=temperature))], 3)
        assert sampler(logits).tokens.tolist() == [1]


@pytest.mark.parametrize("filters", [{}, {"top_k": 5}])
@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_no_draw_however_extreme_leaves_what_is_allowed(
    number: float, filters: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RowSampler, "draw", lambda self: number)
    allowed = np.zeros((1, 4096), np.bool_)
    allowed[0, [7, 1000, 3001]] = True
    sampler = BatchSampler([RowSampler(Sampling(temperature=1.0, **filters))], 4096)
    for step in range(10):
        logits = mx.random.normal((1, 4096), key=mx.random.key(step))
        assert host(sampler(logits, allowed).tokens)[0] in (7, 1000, 3001)


def test_logprobs_are_of_the_raw_logits_for_the_rows_that_ask() -> None:
    asks = Sampling(temperature=0.0, logit_bias={3: 99.0}, logprobs=True, top_logprobs=2)
    rows = [RowSampler(asks), RowSampler(Sampling(temperature=0.0))]
    sampled = BatchSampler(rows, SIZE)(mx.array([LOGITS, LOGITS]))
    assert sampled.tokens.tolist() == [3, 4]
    assert sampled.logprobs is not None
    assert sampled.top_tokens is not None
    expected = np.log(softmax(LOGITS))
    assert sampled.logprobs[0].item() == pytest.approx(expected[3], abs=1e-5)
    assert set(host(sampled.top_tokens[0])) == {4, 0}
    assert BatchSampler(rows[1:], SIZE)(mx.array([LOGITS])).logprobs is None


def test_a_seed_and_a_choice_decide_the_numbers() -> None:
    def numbers(seed: int, index: int) -> list[float]:
        row = RowSampler(Sampling(seed=seed), index)
        return [row.draw() for _ in range(5)]

    assert numbers(1, 0) == numbers(1, 0)
    assert len({tuple(numbers(s, i)) for s in range(4) for i in range(4)}) == 16
