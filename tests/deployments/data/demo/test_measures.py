"""The formulas against published or definitional values, and the table against itself."""

from __future__ import annotations

import pytest

from deployments.data.demo.measures import MEASURES, Sex, bmi, creatinine, egfr, growth, ldl


@pytest.mark.parametrize(
    ("milligrams", "age", "sex", "expected"),
    # Worked by hand from the formula of the paper: at creatinine = kappa both powers are 1.
    [
        (0.7, 0.0, "female", 142 * 1.012),
        (0.9, 0.0, "male", 142.0),
        (1.8, 60.0, "male", 142 * 2**-1.2 * 0.9938**60),
        (1.4, 50.0, "female", 142 * 1.012 * 2**-1.2 * 0.9938**50),
    ],
)
def test_egfr_is_ckd_epi_2021(milligrams: float, age: float, sex: Sex, expected: float) -> None:
    assert egfr(milligrams, age, sex) == pytest.approx(expected)


@pytest.mark.parametrize("sex", ["female", "male"])
@pytest.mark.parametrize("filtration", [8.0, 31.0, 59.0, 90.0, 130.0])
def test_creatinine_undoes_egfr(filtration: float, sex: Sex) -> None:
    assert egfr(creatinine(filtration, 55, sex), 55, sex) == pytest.approx(filtration)


def test_friedewald_and_body_mass() -> None:
    assert ldl(200, 50, 150) == 120
    assert bmi(80, 200) == 20


def test_children_grow_without_a_step_back() -> None:
    for sex in ("female", "male"):
        sizes = [growth(month / 12, sex) for month in range(18 * 12)]
        assert sizes == sorted(sizes)


def test_what_is_usual_is_possible() -> None:
    for measure in MEASURES.values():
        assert measure.low < measure.high
        for bound in measure.usual or ():
            assert bound is None or measure.low <= bound <= measure.high


def test_a_value_beyond_the_possible_is_held_at_its_edge() -> None:
    assert MEASURES["temperature"].rounded(99) == 41.5
    assert MEASURES["heart_rate"].rounded(71.6) == 72
