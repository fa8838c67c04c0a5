"""Task `triage`: how soon someone with these findings needs care, why, and what to do."""

from __future__ import annotations

import random

from models.demo.language.findings import (
    ACTIONS,
    FINDINGS,
    LEVEL_NAMES,
    LEVELS,
    Finding,
    most_pressing,
)
from models.demo.language.items import Item, Language, Split, belongs
from models.demo.language.talk import chat, patient, politely, pose, with_article

_LINKS: dict[Language, dict[str, str]] = {
    "pt": {"emergency": "pode ser", "urgent": "pode ser", "routine": "costuma ser"},
    "en": {"emergency": "may mean", "urgent": "may mean", "routine": "is usually"},
}


def triage_item(rng: random.Random, language: Language, split: Split) -> Item:
    """How soon does a patient with one to three findings need care?"""
    findings = _findings(rng, split)
    who = patient(rng, language)
    if language == "en":
        who = with_article(who)
    names = [rng.choice(finding.names[language]) for finding in findings]
    posed = pose(rng, "triage", language, split, {"who": who, "f": _listed(names, language)})
    worst = most_pressing(findings)
    reasons = tuple(_reason(f, language) for f in findings if f.level == worst.level)
    return Item(
        "triage",
        "triage",
        language,
        chat(rng, language, politely(rng, language, posed.text)),
        _answer(worst, language),
        ((LEVEL_NAMES[language][worst.level],), reasons, (ACTIONS[language][worst.level],)),
        _forbidden(worst.level, language),
        posed.template,
        _key(findings),
    )


def then_action_item(rng: random.Random, language: Language, split: Split) -> Item:
    """A second turn after a triage: what is to be done?"""
    first = triage_item(rng, language, split)
    level = next(k for k, v in LEVEL_NAMES[language].items() if first.answer.startswith(v))
    posed = pose(rng, "then_action", language, split, {})
    turns = (first.question, first.answer, politely(rng, language, posed.text))
    name, action = LEVEL_NAMES[language][level], ACTIONS[language][level]
    return Item(
        "triage",
        "then_action",
        language,
        chat(rng, language, *turns),
        f"{name}. {action}",
        ((name,), (action,)),
        _forbidden(level, language),
        posed.template,
        first.key,
    )


def _answer(worst: Finding, language: Language) -> str:
    level = LEVEL_NAMES[language][worst.level]
    return f"{level}: {_reason(worst, language)}. {ACTIONS[language][worst.level]}"


def _reason(finding: Finding, language: Language) -> str:
    link = _LINKS[language][finding.level]
    return f"{finding.names[language][0]} {link} {finding.means[language]}"


def _forbidden(level: str, language: Language) -> tuple[str, ...]:
    others = [other for other in LEVELS if other != level]
    return tuple(ACTIONS[language][other] for other in others) + tuple(
        f"{LEVEL_NAMES[language][other]}{mark}" for other in others for mark in ":."
    )


def _findings(rng: random.Random, split: Split) -> tuple[Finding, ...]:
    """One to three findings, the gravest of a level drawn evenly; sets of one are for training."""
    while True:
        level = rng.choice(LEVELS)
        worst = rng.choice([finding for finding in FINDINGS if finding.level == level])
        milder = [f for f in FINDINGS if LEVELS.index(f.level) >= LEVELS.index(level)]
        count = rng.choice((0, 1, 1, 2) if split == "train" else (1, 1, 2))
        others = [f for f in rng.sample(milder, count) if f.id != worst.id]
        found = [worst, *others]
        rng.shuffle(found)
        if len(found) == 1 and split == "train":
            return tuple(found)
        if len(found) > 1 and belongs(_key(tuple(found)), split):
            return tuple(found)


def _key(findings: tuple[Finding, ...]) -> str:
    return "+".join(sorted(finding.id for finding in findings))


def _listed(names: list[str], language: Language) -> str:
    if len(names) == 1:
        return names[0]
    link = " e " if language == "pt" else " and "
    return ", ".join(names[:-1]) + link + names[-1]
