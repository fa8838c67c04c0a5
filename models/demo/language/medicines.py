"""Task `drugs`: the class of a drug, a drug of a class, and whether two drugs interact."""

from __future__ import annotations

import random

from models.demo.language.drugs import (
    CLASS_NAMES,
    DRUGS,
    EFFECTS,
    INTERACTIONS,
    SAFE_PAIRS,
    Drug,
    members,
)
from models.demo.language.items import Item, Language, Split, belongs, capital
from models.demo.language.talk import chat, politely, pose

_FEMININE = {"estatina", "sulfonilureia", "biguanida", "rifamicina"}
_VERDICTS: dict[Language, dict[bool, str]] = {
    "pt": {
        True: "Sim, interagem",
        False: "Não se conhece interação clinicamente importante",
    },
    "en": {
        True: "Yes, they interact",
        False: "No clinically important interaction is known",
    },
}
_SAFE_ADVICE: dict[Language, str] = {
    "pt": "podem ser usados juntos com os cuidados habituais",
    "en": "they can be used together with the usual care",
}
_BY_ID = {drug.id: drug for drug in DRUGS}


def _sorted(pairs: list[frozenset[str]]) -> tuple[tuple[str, str], ...]:
    ordered = sorted(tuple(sorted(pair)) for pair in pairs)
    return tuple((pair[0], pair[1]) for pair in ordered)


def _by_outcome() -> dict[str, tuple[tuple[str, str], ...]]:
    """Pairs by class pair, so that a rule over many drugs is not asked more than one over few."""
    found: dict[str, list[frozenset[str]]] = {}
    for pair in INTERACTIONS.keys() | SAFE_PAIRS:
        classes = "+".join(sorted(_BY_ID[drug].class_id for drug in pair))
        found.setdefault(classes, []).append(pair)
    return {classes: _sorted(pairs) for classes, pairs in sorted(found.items())}


_PAIRS = _by_outcome()
_RULED = [c for c, pairs in _PAIRS.items() if frozenset(pairs[0]) in INTERACTIONS]
_HARMLESS = [c for c in _PAIRS if c not in _RULED]


def class_item(rng: random.Random, language: Language, split: Split) -> Item:
    """Which class is this drug of?"""
    drug = rng.choice(DRUGS)
    posed = pose(rng, "class_of", language, split, {"x": drug.names[language]})
    return Item(
        "drugs",
        "class_of",
        language,
        chat(rng, language, politely(rng, language, posed.text)),
        f"{capital(_belonging(drug, language))}.",
        ((drug.names[language],), (CLASS_NAMES[drug.class_id][language],)),
        _other_classes(language, {drug.class_id}),
        posed.template,
        drug.id,
    )


def example_item(rng: random.Random, language: Language, split: Split) -> Item:
    """Name a drug of this class; any of its drugs will do."""
    class_id = rng.choice(list(CLASS_NAMES))
    asked = _class_as_asked(rng, CLASS_NAMES[class_id][language])
    posed = pose(rng, "drug_of", language, split, {"c": asked})
    drugs = members(class_id)
    names = tuple(drug.names[language] for drug in drugs)
    others = tuple(d.names[language] for d in DRUGS if d.class_id != class_id)
    return Item(
        "drugs",
        "drug_of",
        language,
        chat(rng, language, politely(rng, language, posed.text)),
        f"{capital(_belonging(drugs[0], language))}.",
        (names, (CLASS_NAMES[class_id][language],)),
        others + _other_classes(language, {class_id}),
        posed.template,
        class_id,
    )


def interaction_item(rng: random.Random, language: Language, split: Split) -> Item:
    """Do these two drugs interact, why, and what is to be done?"""
    one, other = _pair(rng, split)
    slots = {"x": one.names[language], "y": other.names[language]}
    posed = pose(rng, "interaction", language, split, slots)
    turns = (politely(rng, language, posed.text),)
    return _answered(rng, "interaction", language, one, other, turns, posed.template)


def then_interaction_item(rng: random.Random, language: Language, split: Split) -> Item:
    """A second turn: does the drug whose class was asked interact with another one?"""
    one, other = _pair(rng, split)
    first = pose(rng, "class_of", language, split, {"x": one.names[language]})
    posed = pose(rng, "then_interaction", language, split, {"y": other.names[language]})
    turns = (
        politely(rng, language, first.text),
        f"{capital(_belonging(one, language))}.",
        politely(rng, language, posed.text),
    )
    return _answered(rng, "then_interaction", language, one, other, turns, posed.template)


def _pair(rng: random.Random, split: Split) -> tuple[Drug, Drug]:
    while True:
        classes = rng.choice(_RULED if rng.random() < 0.6 else _HARMLESS)
        pair = rng.choice(_PAIRS[classes])
        if belongs("+".join(pair), split):
            one, other = rng.sample(pair, 2)
            return _BY_ID[one], _BY_ID[other]


def _answered(
    rng: random.Random,
    kind: str,
    language: Language,
    one: Drug,
    other: Drug,
    turns: tuple[str, ...],
    template: str,
) -> Item:
    effect_id = INTERACTIONS.get(frozenset((one.id, other.id)))
    verdict = _VERDICTS[language][effect_id is not None]
    link = "e" if language == "pt" else "and"
    classes = f"{capital(_belonging(one, language))} {link} {_belonging(other, language)}."
    forbidden = [_VERDICTS[language][effect_id is None]]
    forbidden += _other_classes(language, {one.class_id, other.class_id})
    required = [(drug.names[language],) for drug in (one, other)]
    required += [(CLASS_NAMES[drug.class_id][language],) for drug in (one, other)]
    required.append((verdict,))
    if effect_id is None:
        answer = f"{classes} {verdict}: {_SAFE_ADVICE[language]}."
    else:
        effect = EFFECTS[effect_id]
        answer = (
            f"{classes} {verdict}: {effect.says[language]}. {capital(effect.advice[language])}."
        )
        required += [(effect.says[language],), (effect.advice[language],)]
        forbidden += [
            another.says[language]
            for another in EFFECTS.values()
            if another.says[language] not in effect.says[language]
        ]
    return Item(
        "drugs",
        kind,
        language,
        chat(rng, language, *turns),
        answer,
        tuple(required),
        tuple(forbidden),
        template,
        "+".join(sorted((one.id, other.id))),
    )


def _belonging(drug: Drug, language: Language) -> str:
    """ "warfarin is a vitamin K antagonist", in the language."""
    name = CLASS_NAMES[drug.class_id][language]
    if language == "pt":
        return f"{drug.names['pt']} é {'uma' if name in _FEMININE else 'um'} {name}"
    article = "an" if name[0].lower() in "aeio" or name.startswith("SGLT2") else "a"
    return f"{drug.names['en']} is {article} {name}"


def _class_as_asked(rng: random.Random, name: str) -> str:
    """A class name whole, without its abbreviation, or as the abbreviation alone."""
    long, _, short = name.partition(" (")
    return rng.choice((name, long, short.rstrip(")"))) if short else name


def _other_classes(language: Language, right: set[str]) -> tuple[str, ...]:
    """The class names that an answer must not hold, less those inside a right one."""
    allowed = [CLASS_NAMES[class_id][language] for class_id in right]
    names = (CLASS_NAMES[class_id][language] for class_id in CLASS_NAMES if class_id not in right)
    return tuple(name for name in names if not any(name in good for good in allowed))
