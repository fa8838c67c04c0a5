"""The few statistics that the reports use, exact and without surprises on small samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile of an ascending sample by linear interpolation (type 7); nan when empty."""
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile lies between 0 and 1, not {q}")
    if not ordered:
        return math.nan
    position = (len(ordered) - 1) * q
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


@dataclass(frozen=True, slots=True)
class Spread:
    """A sample in four figures, in the sample's own unit."""

    p50: float
    p95: float
    p99: float
    worst: float


def spread(sample: Sequence[float]) -> Spread:
    ordered = sorted(sample)
    return Spread(
        p50=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
        worst=ordered[-1] if ordered else math.nan,
    )


@dataclass(frozen=True, slots=True)
class Ratios:
    """Pair by pair, ours over theirs: noise that both turns of a pair share cancels out."""

    pairs: tuple[float, ...]

    @property
    def middle(self) -> float:
        return median(self.pairs) if self.pairs else math.nan

    @property
    def least(self) -> float:
        return min(self.pairs, default=math.nan)

    @property
    def most(self) -> float:
        return max(self.pairs, default=math.nan)


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Ratios:
    """Ours over theirs for each pair of which both sides have a positive figure."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} figures cannot be paired with {len(theirs)}")
    return Ratios(tuple(a / b for a, b in zip(ours, theirs, strict=True) if a > 0 and b > 0))
