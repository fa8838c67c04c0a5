"""CPF and CNS by their own rules, worked out here in another way than in the generator."""

from __future__ import annotations

from random import Random

from deployments.data.demo.identifiers import cns, cpf


def is_cpf(text: str) -> bool:
    """The definition by the sums that must vanish modulo 11, up to ten being written as zero."""
    digits = [int(c) for c in text]
    first = sum(d * w for d, w in zip(digits, range(10, 1, -1), strict=False)) * 10 % 11 % 10
    second = sum(d * w for d, w in zip(digits, range(11, 1, -1), strict=False)) * 10 % 11 % 10
    return len(digits) == 11 and len(set(digits)) > 1 and digits[9:] == [first, second]


def test_the_check_itself_tells_right_from_wrong() -> None:
    assert is_cpf("52998224725")
    assert not is_cpf("52998224726")
    assert not is_cpf("11111111111")


def test_every_cpf_has_its_check_digits() -> None:
    chance = Random(1)
    assert all(is_cpf(cpf(chance)) for _ in range(2_000))


def test_every_cns_weighs_a_multiple_of_eleven_and_is_a_definitive_one() -> None:
    chance = Random(2)
    for _ in range(2_000):
        number = cns(chance)
        assert len(number) == 15
        assert number[0] in "12"
        assert number[11:14] in ("000", "001")
        assert sum(int(d) * w for d, w in zip(number, range(15, 0, -1), strict=True)) % 11 == 0
