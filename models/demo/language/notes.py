"""Task `notes`: a SOAP note from a short dictation, with the vital signs copied and flagged."""

from __future__ import annotations

import random
from dataclasses import dataclass

from models.demo.language.analytes import BY_ID
from models.demo.language.items import Item, Language, Split, belongs, capital, number
from models.demo.language.talk import WORDINGS, chat, fill, politely
from models.demo.language.visits import COMPLAINTS, VITALS, Complaint

_FLAGS: dict[Language, dict[str, str]] = {
    "pt": {"low": "baixa", "normal": "normal", "high": "alta"},
    "en": {"low": "low", "normal": "normal", "high": "high"},
}
_LABELS: dict[Language, dict[str, tuple[str, str]]] = {
    "pt": {
        "bp": ("PA", " mmHg"),
        "hr": ("FC", " bpm"),
        "rr": ("FR", "/min"),
        "temp": ("temp", " °C"),
        "spo2": ("SpO2", "%"),
    },
    "en": {
        "bp": ("BP", " mmHg"),
        "hr": ("HR", " bpm"),
        "rr": ("RR", "/min"),
        "temp": ("temp", " °C"),
        "spo2": ("SpO2", "%"),
    },
}
_SPOKEN: dict[Language, dict[str, str]] = {
    "pt": {
        "bp": "pressão arterial",
        "hr": "frequência cardíaca",
        "rr": "frequência respiratória",
        "temp": "temperatura",
        "spo2": "saturação",
    },
    "en": {
        "bp": "blood pressure",
        "hr": "heart rate",
        "rr": "respiratory rate",
        "temp": "temperature",
        "spo2": "saturation",
    },
}
_TIMES: dict[Language, tuple[str, ...]] = {
    "pt": ("horas", "dias", "semanas", "meses"),
    "en": ("hours", "days", "weeks", "months"),
}


@dataclass(frozen=True)
class Visit:
    """What was dictated: someone, a complaint for a time, vital signs as written, their flags."""

    who: str
    complaint: Complaint
    lasting: str
    vitals: dict[str, str]
    flags: dict[str, str]
    key: str


def note_item(rng: random.Random, language: Language, split: Split) -> Item:
    """Write a SOAP note from this dictation."""
    visit = _visit(rng, language, split)
    text, template, dictated = _dictation(rng, visit, language, split)
    return Item(
        "notes",
        "note",
        language,
        chat(rng, language, politely(rng, language, text)),
        _note(visit, dictated, language),
        _required(visit, dictated, language),
        tuple(f"O: {_LABELS[language][name][0]}" for name in VITALS if name not in dictated),
        template,
        visit.key,
        max_tokens=192,
    )


def then_vital_item(rng: random.Random, language: Language, split: Split) -> Item:
    """A second turn after a note: what was this vital sign?"""
    visit = _visit(rng, language, split)
    text, _, dictated = _dictation(rng, visit, language, split)
    vital = rng.choice(dictated)
    spoken = _SPOKEN[language][vital]
    pattern = rng.choice(WORDINGS[language].of("then_vital", split))
    turns = (
        politely(rng, language, text),
        _note(visit, dictated, language),
        politely(rng, language, fill(pattern, rng, {"m": spoken})),
    )
    said = f"{visit.vitals[vital]}{_LABELS[language][vital][1]} ({_FLAGS[language][visit.flags[vital]]})"
    answer = f"A {spoken} era {said}." if language == "pt" else f"The {spoken} was {said}."
    return Item(
        "notes",
        "then_vital",
        language,
        chat(rng, language, *turns),
        answer,
        ((f"{spoken} {'era' if language == 'pt' else 'was'} {said}",),),
        (),
        f"{language}:then_vital:{pattern}",
        visit.key,
    )


def _visit(rng: random.Random, language: Language, split: Split) -> Visit:
    while True:
        sex, age = rng.choice(("man", "woman")), rng.randint(18, 90)
        complaint = rng.choice(COMPLAINTS)
        amount, unit = rng.randint(2, 12), rng.randrange(4)
        story = f"{age}|{complaint.id}|{amount}|{unit}"
        flags = {name: _flag(rng, name) for name in VITALS}
        vitals = {name: _reading(rng, name, flags[name], language) for name in VITALS}
        signs = "|".join((vitals["bp"], vitals["hr"]))
        if belongs(story, split) and belongs(signs, split):
            break
    if language == "pt":
        who = f"{'homem' if sex == 'man' else 'mulher'} de {age} anos"
    else:
        who = f"{age}-year-old {sex}"
    lasting = f"{amount} {_TIMES[language][unit]}"
    return Visit(who, complaint, lasting, vitals, flags, f"{story};{signs}")


def _flag(rng: random.Random, name: str) -> str:
    return rng.choice(("low", "normal") if name == "spo2" else ("low", "normal", "high", "high"))


def _reading(rng: random.Random, name: str, flag: str, language: Language) -> str:
    """A vital sign that deserves the flag; both pressures do."""
    if name == "bp":
        return f"{_reading(rng, 'sbp', flag, language)}/{_reading(rng, 'dbp', flag, language)}"
    analyte = BY_ID[name]
    bounds, step = analyte.ranges["adult"], 10.0**-analyte.decimals
    if bounds.low is None or bounds.high is None:
        raise ValueError(f"{name} has no range to flag it by")
    zones = {
        "low": (analyte.span[0], bounds.low - step),
        "normal": (bounds.low, bounds.high),
        "high": (bounds.high + step, analyte.span[1]),
    }
    if name == "rr":
        zones["low"], zones["high"] = (6, bounds.low - 1), (bounds.high + 1, 40)
    return number(rng.uniform(*zones[flag]), analyte.decimals, language)


def _dictation(
    rng: random.Random, visit: Visit, language: Language, split: Split
) -> tuple[str, str, tuple[str, ...]]:
    """The request with the dictation, the name of its phrasing, and the vital signs in it."""
    words = WORDINGS[language]
    ask, told = (rng.choice(words.of(kind, split)) for kind in ("note_ask", "dictation"))
    complaint = visit.complaint
    slots = dict(visit.vitals) | {
        "who": visit.who,
        "c": complaint.says[language],
        "t": visit.lasting,
        "e": complaint.examination[language],
        "x": complaint.assessment[language],
        "pl": complaint.plan[language],
    }
    dictation = _sentences(fill(told, rng, slots))
    dictated = tuple(name for name in VITALS if "{" + name + "}" in told)
    return fill(ask, rng, {"d": dictation}), f"{language}:note:{ask}::{told}", dictated


def _sentences(text: str) -> str:
    return ". ".join(capital(sentence) for sentence in text.split(". "))


def _measure(visit: Visit, name: str, language: Language) -> str:
    label, unit = _LABELS[language][name]
    return f"{label} {visit.vitals[name]}{unit} ({_FLAGS[language][visit.flags[name]]})"


def _note(visit: Visit, dictated: tuple[str, ...], language: Language) -> str:
    complaint = visit.complaint
    since = "há" if language == "pt" else "for"
    signs = ", ".join(_measure(visit, name, language) for name in dictated)
    return "\n".join(
        (
            f"S: {capital(visit.who)}, {complaint.says[language]} {since} {visit.lasting}.",
            f"O: {signs}. {capital(complaint.examination[language])}.",
            f"A: {capital(complaint.assessment[language])}.",
            f"P: {capital(complaint.plan[language])}.",
        )
    )


def _required(
    visit: Visit, dictated: tuple[str, ...], language: Language
) -> tuple[tuple[str, ...], ...]:
    complaint = visit.complaint
    subjective = (visit.who, complaint.says[language], visit.lasting)
    objective = [_measure(visit, name, language) for name in dictated]
    objective.append(complaint.examination[language])
    return (
        *((f"S: {fact}",) for fact in subjective),
        *((f"O: {fact}",) for fact in objective),
        (f"A: {complaint.assessment[language]}",),
        (f"P: {complaint.plan[language]}",),
    )
