"""Task `ranges`: what the reference range is, and whether a value is low, normal or high."""

from __future__ import annotations

import random

from models.demo.language.analytes import ANALYTES, Analyte, Range
from models.demo.language.items import Item, Language, Split, belongs, capital, number
from models.demo.language.talk import chat, patient, politely, pose, with_article

VERDICTS: dict[Language, dict[str, str]] = {
    "pt": {"low": "baixo", "normal": "normal", "high": "alto"},
    "en": {"low": "low", "normal": "normal", "high": "high"},
}
_PLACES: dict[Language, dict[str, str]] = {
    "pt": {"low": "abaixo da faixa", "normal": "dentro da faixa", "high": "acima da faixa"},
    "en": {"low": "below the range", "normal": "within the range", "high": "above the range"},
}
_POPULATIONS: dict[Language, dict[str, str]] = {
    "pt": {
        "adult": "em adultos",
        "man": "em homens",
        "woman": "em mulheres",
        "newborn": "em recém-nascidos",
        "pregnant": "na gestação",
    },
    "en": {
        "adult": "in adults",
        "man": "in men",
        "woman": "in women",
        "newborn": "in newborns",
        "pregnant": "in pregnancy",
    },
}
_ASKED: dict[Language, dict[str, tuple[str, ...]]] = {
    "pt": {
        "adult": ("", "", "em adultos", "em um adulto", "no adulto", "{patient}"),
        "man": ("em homens", "em um homem", "no homem", "{patient}", "{patient}"),
        "woman": ("em mulheres", "em uma mulher", "na mulher", "{patient}", "{patient}"),
        "newborn": ("em recém-nascidos", "em um recém-nascido", "no recém-nascido"),
        "pregnant": ("na gestação", "na gravidez", "em uma gestante", "em gestantes"),
    },
    "en": {
        "adult": ("", "", "in adults", "in an adult", "for an adult", "{patient}"),
        "man": ("in men", "in a man", "for a man", "{patient}", "{patient}"),
        "woman": ("in women", "in a woman", "for a woman", "{patient}", "{patient}"),
        "newborn": ("in newborns", "in a newborn", "for a newborn"),
        "pregnant": ("in pregnancy", "in a pregnant woman", "during pregnancy"),
    },
}


def range_item(rng: random.Random, language: Language, split: Split) -> Item:
    """What is the reference range of an analyte in a population?"""
    analyte = rng.choice(ANALYTES)
    population = rng.choice(list(analyte.ranges))
    slots = {"a": _name(rng, analyte, language), "p": _asked(rng, population, language)}
    posed = pose(rng, "range", language, split, slots)
    stated = limits(analyte, population, language)
    return Item(
        "ranges",
        "range",
        language,
        chat(rng, language, politely(rng, language, posed.text)),
        _statement(analyte, population, language),
        ((analyte.names[language][0],), (stated,), (_POPULATIONS[language][population],)),
        (),
        posed.template,
        f"{analyte.id}:{population}",
    )


def verdict_item(rng: random.Random, language: Language, split: Split) -> Item:
    """Is a value of an analyte low, normal or high in a population?"""
    analyte = rng.choice(ANALYTES)
    population = rng.choice(list(analyte.ranges))
    value = _value(rng, analyte, population, split)
    posed = _pose_verdict(rng, language, split, analyte, population, value)
    turns = (politely(rng, language, posed[0]),)
    return _judged(rng, "verdict", language, analyte, population, value, turns, posed[1])


def then_verdict_item(rng: random.Random, language: Language, split: Split) -> Item:
    """A second turn about the same analyte: and if the value is this?"""
    if rng.random() < 0.5:
        first = range_item(rng, language, split)
        id_, population = first.key.split(":")
    else:
        first = verdict_item(rng, language, split)
        id_, population, _ = first.key.split(":")
    analyte = next(analyte for analyte in ANALYTES if analyte.id == id_)
    value = _value(rng, analyte, population, split)
    slots = {"v": _amount(rng, analyte, value, language)}
    posed = pose(rng, "then_verdict", language, split, slots)
    turns = (first.question, first.answer, politely(rng, language, posed.text))
    return _judged(rng, "then_verdict", language, analyte, population, value, turns, posed.template)


def limits(analyte: Analyte, population: str, language: Language) -> str:
    """The range in words: "60–100 bpm", "up to 199 mg/dL", "from 40 mg/dL"."""
    bounds: Range = analyte.ranges[population]
    low, high = (
        None if bound is None else number(bound, analyte.decimals, language)
        for bound in (bounds.low, bounds.high)
    )
    unit = _unit(analyte, language)
    if low is not None and high is not None:
        return f"{low}–{high}{unit}"
    words = ("a partir de", "até") if language == "pt" else ("from", "up to")
    return f"{words[0]} {low}{unit}" if high is None else f"{words[1]} {high}{unit}"


def _statement(analyte: Analyte, population: str, language: Language) -> str:
    words = "faixa de referência" if language == "pt" else "reference range"
    name, where = analyte.names[language][0], _POPULATIONS[language][population]
    return f"{capital(name)} {where}: {words} {limits(analyte, population, language)}."


def _judged(
    rng: random.Random,
    kind: str,
    language: Language,
    analyte: Analyte,
    population: str,
    value: float,
    turns: tuple[str, ...],
    template: str,
) -> Item:
    verdict = analyte.ranges[population].verdict(value)
    word, place = VERDICTS[language][verdict], _PLACES[language][verdict]
    term = analyte.terms.get((language, verdict))
    amount = number(value, analyte.decimals, language) + _unit(analyte, language)
    link = "está" if language == "pt" else "is"
    ending = f"{word} ({term})" if term else word
    answer = f"{_statement(analyte, population, language)} {amount} {link} {place}: {ending}."
    others = [VERDICTS[language][other] for other in VERDICTS[language] if other != verdict]
    others += [_PLACES[language][other] for other in _PLACES[language] if other != verdict]
    return Item(
        "ranges",
        kind,
        language,
        chat(rng, language, *turns),
        answer,
        (
            (analyte.names[language][0],),
            (limits(analyte, population, language),),
            (amount,),
            (place,),
            (word,),
        ),
        tuple(others),
        template,
        f"{analyte.id}:{population}:{value:.{analyte.decimals}f}",
    )


def _pose_verdict(
    rng: random.Random,
    language: Language,
    split: Split,
    analyte: Analyte,
    population: str,
    value: float,
) -> tuple[str, str]:
    slots = {
        "a": _name(rng, analyte, language),
        "v": _amount(rng, analyte, value, language),
        "p": _asked(rng, population, language),
    }
    posed = pose(rng, "verdict", language, split, slots)
    return posed.text, posed.template


def _name(rng: random.Random, analyte: Analyte, language: Language) -> str:
    names = analyte.names[language]
    return names[0] if rng.random() < 0.4 else rng.choice(names)


def _asked(rng: random.Random, population: str, language: Language) -> str:
    phrase = rng.choice(_ASKED[language][population])
    if phrase != "{patient}":
        return phrase
    who = patient(rng, language, None if population == "adult" else population)
    return f"em {who}" if language == "pt" else f"in {with_article(who)}"


def _unit(analyte: Analyte, language: Language) -> str:
    unit = analyte.unit[language]
    return unit if unit in ("", "%") else f" {unit}"


def _amount(rng: random.Random, analyte: Analyte, value: float, language: Language) -> str:
    text = number(value, analyte.decimals, language)
    return text if rng.random() < 0.15 else text + _unit(analyte, language)


def _value(rng: random.Random, analyte: Analyte, population: str, split: Split) -> float:
    """A value of the split: each verdict as often, one in three within a few steps of a bound."""
    bounds = analyte.ranges[population]
    step = 10.0**-analyte.decimals
    low = bounds.low if bounds.low is not None else analyte.span[0]
    high = bounds.high if bounds.high is not None else analyte.span[1]
    zones = [(low, high)]
    if bounds.low is not None and bounds.low > analyte.span[0]:
        zones.append((analyte.span[0], bounds.low - step))
    if bounds.high is not None and bounds.high < analyte.span[1]:
        zones.append((bounds.high + step, analyte.span[1]))
    while True:
        start, end = rng.choice(zones)
        if rng.random() < 0.33:
            width = max(6 * step, 0.15 * (high - low))
            near = rng.choice((max(start, end - width), min(end, start + width)))
            start, end = min(near, start if near > start else end), max(near, start)
            start, end = (start, end) if start <= end else (end, start)
        drawn = round(rng.uniform(start, end), analyte.decimals)
        if belongs(f"{analyte.id}:{population}:{drawn:.{analyte.decimals}f}", split):
            return drawn
