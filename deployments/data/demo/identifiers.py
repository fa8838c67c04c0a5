"""Numbers with right check digits for people who do not exist: CPF and CNS."""

from __future__ import annotations

from random import Random


def cpf(chance: Random) -> str:
    """Eleven digits; the last two are remainders modulo 11 of the weighted ones before them."""
    while True:
        digits = [chance.randrange(10) for _ in range(9)]
        if len(set(digits)) > 1:
            break
    for _ in range(2):
        weight = len(digits) + 1
        rest = sum(d * (weight - i) for i, d in enumerate(digits)) % 11
        digits.append(0 if rest < 2 else 11 - rest)
    return "".join(map(str, digits))


def cns(chance: Random) -> str:
    """Fifteen digits of a definitive card: eleven that begin with 1 or 2, 000 or 001, a check digit.

    The digits weighted 15 to 1 add up to a multiple of 11.
    """
    digits = [chance.choice((1, 2)), *(chance.randrange(10) for _ in range(10))]
    total = sum(d * (15 - i) for i, d in enumerate(digits))
    check, middle = -total % 11, (0, 0, 0)
    if check == 10:  # no digit: with 001 in between the sum is two more
        check, middle = -(total + 2) % 11, (0, 0, 1)
    return "".join(map(str, (*digits, *middle, check)))
