"""The training stream and the held-out set, drawn by seed from the tables and phrasings."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from models.demo.language import medicines, notes, ranges, triage
from models.demo.language.general import general_item
from models.demo.language.items import LANGUAGES, Item, Language, Split

Maker = Callable[[random.Random, Language, Split], Item]

# kind → (maker, share of the training stream, held-out items in each language)
KINDS: dict[str, tuple[Maker, int, int]] = {
    "range": (ranges.range_item, 5, 20),
    "verdict": (ranges.verdict_item, 20, 60),
    "then_verdict": (ranges.then_verdict_item, 6, 15),
    "class_of": (medicines.class_item, 5, 20),
    "drug_of": (medicines.example_item, 3, 10),
    "interaction": (medicines.interaction_item, 18, 45),
    "then_interaction": (medicines.then_interaction_item, 5, 15),
    "triage": (triage.triage_item, 13, 60),
    "then_action": (triage.then_action_item, 3, 10),
    "note": (notes.note_item, 14, 50),
    "then_vital": (notes.then_vital_item, 4, 15),
}
_GENERAL_SHARE = 3
HELD_OUT_SEED = 20261122


def training_items(seed: int) -> Iterator[Item]:
    """Training chats without end, half in each language; the same for the same seed."""
    rng = random.Random(seed)
    kinds = [*KINDS, "general"]
    shares = [*(share for _, share, _ in KINDS.values()), _GENERAL_SHARE]
    while True:
        kind = rng.choices(kinds, shares)[0]
        language = rng.choice(LANGUAGES)
        if kind == "general":
            yield general_item(rng, language)
        else:
            yield KINDS[kind][0](rng, language, "train")


def held_out_items(seed: int = HELD_OUT_SEED) -> list[Item]:
    """The held-out set: phrasings and value combinations that `training_items` never draws.

    640 items, the same for the same seed, each last question once.
    """
    rng = random.Random(seed)
    items: list[Item] = []
    for language in LANGUAGES:
        for maker, _, count in KINDS.values():
            seen: set[tuple[str, ...]] = set()
            while len(seen) < count:
                item = maker(rng, language, "held_out")
                turns = tuple(message["content"] for message in item.messages)
                if turns not in seen:
                    seen.add(turns)
                    items.append(item)
    return items
