"""Brazil's numbers of persons, checked by their digits: CPF and the health card's CNS.

CPF: Receita Federal's two check digits modulo 11. CNS: Cartão Nacional de Saúde, definitive numbers
(1, 2: made from a PIS) and provisional ones (7, 8, 9), as DATASUS's validation routine has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

_CPF = re.compile(r"[0-9]{11}")
_CNS = re.compile(r"[12][0-9]{10}00[01][0-9]|[789][0-9]{14}")


def is_cpf(text: str) -> bool:
    """Eleven digits, not all equal, the last two of them the check digits of those before."""
    if not _CPF.fullmatch(text) or len(set(text)) == 1:
        return False
    digits = [int(char) for char in text]
    return all(digits[length] == _cpf_digit(digits[:length]) for length in (9, 10))


def _cpf_digit(digits: list[int]) -> int:
    weights = range(len(digits) + 1, 1, -1)
    rest = sum(digit * weight for digit, weight in zip(digits, weights, strict=True))
    return 0 if rest % 11 < 2 else 11 - rest % 11


def is_cns(text: str) -> bool:
    """Fifteen digits whose sum, weighted 15 to 1, is a multiple of 11.

    A definitive number ends in 000 and a digit, or, where that digit would be ten, in 001 and one.
    """
    if not _CNS.fullmatch(text):
        return False
    digits = [int(char) for char in text]
    weighted = [digit * (15 - position) for position, digit in enumerate(digits)]
    if sum(weighted) % 11 != 0:
        return False
    needs_one = -sum(weighted[:11]) % 11 == 10
    return text[0] in "789" or (text[13] == "1") == needs_one


CHECKS: Mapping[str, Callable[[str], bool]] = MappingProxyType({"cpf": is_cpf, "cns": is_cns})
"""By the names that `identifier_systems` of the configuration uses."""
