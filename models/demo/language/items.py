"""A question with what its answer must hold, and the rule that keeps some out of training."""

from __future__ import annotations

import random
import re
import unicodedata
import zlib
from dataclasses import dataclass, field
from typing import Literal

Language = Literal["pt", "en"]
Split = Literal["train", "held_out"]
LANGUAGES: tuple[Language, ...] = ("pt", "en")
TASKS = ("ranges", "drugs", "triage", "notes")

HELD_OUT_ONE_IN = 5
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Item:
    """One chat whose last turn is a user's, with a reference answer and the facts to grade by.

    `required` is a list of alternatives: of each tuple at least one phrase must be in the answer.
    None of `forbidden` may be. A phrase "S: x" is looked for in the answer's line that starts
    with "S:". `template` names the phrasing of the last turn and `key` its value combination;
    both are what the held-out set leaves out of training.
    """

    task: str
    kind: str
    language: Language
    messages: tuple[dict[str, str], ...]
    answer: str
    required: tuple[tuple[str, ...], ...]
    forbidden: tuple[str, ...]
    template: str
    key: str
    max_tokens: int = field(default=96)

    @property
    def question(self) -> str:
        """The last user turn."""
        return self.messages[-1]["content"]


def is_held_out(key: str) -> bool:
    """Whether a value combination is kept out of training: one in `HELD_OUT_ONE_IN`, by hash."""
    return zlib.crc32(key.encode()) % HELD_OUT_ONE_IN == 0


def belongs(key: str, split: Split) -> bool:
    """Whether a value combination may be asked about in this split."""
    return is_held_out(key) == (split == "held_out")


def expand(pattern: str, rng: random.Random) -> str:
    """One reading of a pattern: each "[a|b]" becomes one of its alternatives, innermost first."""
    while found := _CHOICE.search(pattern):
        chosen = rng.choice(found.group(1).split("|"))
        pattern = pattern[: found.start()] + chosen + pattern[found.end() :]
    return re.sub(r"  +", " ", pattern).strip()


def roughen(text: str, rng: random.Random) -> str:
    """The text as people type it: sometimes in lower case, without accents or full stop."""
    if rng.random() < 0.2:
        text = text.lower()
    if rng.random() < 0.15:
        text = without_accents(text)
    if rng.random() < 0.2:
        text = text.rstrip("?.")
    return text


def without_accents(text: str) -> str:
    """The text with its letters' accents removed; º, µ and ² stay."""
    split = unicodedata.normalize("NFD", text)
    return unicodedata.normalize("NFC", "".join(c for c in split if not unicodedata.combining(c)))


def capital(text: str) -> str:
    """The text with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def number(value: float, decimals: int, language: Language) -> str:
    """A number as the language writes it: a decimal comma in Portuguese."""
    text = f"{value:.{decimals}f}"
    return text.replace(".", ",") if language == "pt" else text
