"""How names and codes are written down for search: folded words, their prefixes, and tokens."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

MIN_PREFIX = 2
MAX_PREFIX = 12
# Ends the purpose of the tokens that compare a part of a name as it is written.
EXACT = ":exact"


def words_of(text: str) -> list[str]:
    """The words of a name without case and accents: `Conceição D'Ávila` → conceicao, d, avila."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(char for char in decomposed if not unicodedata.combining(char))
    return "".join(char if char.isalnum() else " " for char in bare).split()


def prefix_of(word: str) -> str:
    """What of a searched word is compared: beyond `MAX_PREFIX` characters nothing is."""
    return word[:MAX_PREFIX]


def prefixes_of(word: str) -> Iterator[str]:
    """Every beginning of a word that can be searched."""
    for length in range(MIN_PREFIX, min(len(word), MAX_PREFIX) + 1):
        yield word[:length]


def token_of(system: str | None, code: str) -> str:
    """`system|code`, `|code` for no system, `system|` for any code, `code` for any system."""
    escaped = _escaped(code)
    return escaped if system is None else f"{_escaped(system)}|{escaped}"


def tokens_of(system: str, code: str) -> tuple[str, ...]:
    """Every token by which a code can be found."""
    forms = [token_of(system, code), token_of(None, code)]
    return (*forms, token_of(system, "")) if system else tuple(forms)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|")
