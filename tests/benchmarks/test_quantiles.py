from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.quantiles import quantile, ratios, spread

SAMPLES = st.lists(st.floats(0, 1e6), min_size=2, max_size=60)


@given(SAMPLES)
def test_quantiles_agree_with_the_standard_librarys_inclusive_ones(sample: list[float]) -> None:
    expected = statistics.quantiles(sample, n=20, method="inclusive")
    found = [quantile(sorted(sample), k / 20) for k in range(1, 20)]
    assert found == pytest.approx(expected)


def test_a_spread_of_a_hundred_and_one_figures_is_their_percentiles() -> None:
    found = spread([float(n) for n in range(100, -1, -1)])
    assert (found.p50, found.p95, found.p99, found.worst) == (50, 95, 99, 100)


def test_an_empty_sample_has_no_figures_rather_than_zeros() -> None:
    assert math.isnan(spread([]).p50)
    assert math.isnan(spread([]).worst)


def test_a_quantile_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        quantile([1.0], 1.1)


def test_ratios_are_taken_pair_by_pair_and_not_of_the_medians() -> None:
    found = ratios([10, 40, 30], [10, 10, 20])
    assert found.pairs == (1, 4, 1.5)
    assert (found.least, found.middle, found.most) == (1, 1.5, 4)


def test_a_pair_of_which_one_side_failed_gives_no_ratio() -> None:
    assert ratios([10, 20], [0, 10]).pairs == (2,)
    assert math.isnan(ratios([10], [0]).middle)


def test_unequal_numbers_of_figures_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        ratios([1], [1, 2])
