"""The phrasings of one language, those trained on and those held out."""

from __future__ import annotations

from dataclasses import dataclass

from models.demo.language.items import Split


@dataclass(frozen=True)
class Wordings:
    """Patterns by kind of question; no pattern is in both."""

    train: dict[str, tuple[str, ...]]
    held_out: dict[str, tuple[str, ...]]

    def of(self, kind: str, split: Split) -> tuple[str, ...]:
        """The patterns of a kind that a split may use."""
        return (self.train if split == "train" else self.held_out)[kind]
