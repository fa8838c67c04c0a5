"""Puts a question into words and into a chat: politeness, patients, system prompts, typing."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from models.demo.language.items import Language, Split, capital, expand, roughen
from models.demo.language.wordings import Wordings
from models.demo.language.wordings_en import ENGLISH
from models.demo.language.wordings_pt import PORTUGUESE

WORDINGS: dict[Language, Wordings] = {"pt": PORTUGUESE, "en": ENGLISH}

_OPENINGS: dict[Language, tuple[str, ...]] = {
    "en": (
        "Hello.",
        "Hi,",
        "Good morning.",
        "Good evening.",
        "Please:",
        "Quick question:",
        "Doctor,",
        "A doubt:",
        "Hello, please help me.",
        "Question from the ward:",
        "One more thing:",
    ),
    "pt": (
        "Olá.",
        "Oi,",
        "Bom dia.",
        "Boa noite.",
        "Por favor:",
        "Pergunta rápida:",
        "Doutor,",
        "Uma dúvida:",
        "Olá, me ajude por favor.",
        "Pergunta da enfermaria:",
        "Mais uma coisa:",
    ),
}
_CLOSINGS: dict[Language, tuple[str, ...]] = {
    "en": ("Thanks.", "Thank you!", "Please answer briefly.", "I am a nurse.", "I am a student."),
    "pt": (
        "Obrigado.",
        "Obrigada!",
        "Responda em poucas palavras.",
        "Sou enfermeira.",
        "Sou aluno.",
    ),
}
_SYSTEM: dict[Language, tuple[str, ...]] = {
    "en": (
        "You are a clinical assistant. Answer briefly.",
        "You help nurses and doctors in a hospital.",
        "Answer in the language of the question, in one or two sentences.",
        "You are a helpful medical assistant.",
        "Be concise and state reference ranges.",
    ),
    "pt": (
        "Você é um assistente clínico. Responda de forma breve.",
        "Você ajuda enfermeiros e médicos de um hospital.",
        "Responda no idioma da pergunta, em uma ou duas frases.",
        "Você é um assistente médico prestativo.",
        "Seja conciso e cite as faixas de referência.",
    ),
}
_WRONG_A = re.compile(r"\b([Aa]) (?=[aeio])")
_WRONG_AN = re.compile(r"\b([Aa])n (?=[b-df-hj-np-tv-z])")


@dataclass(frozen=True)
class Posed:
    """A question in words, and the name of the phrasing it came from."""

    text: str
    template: str


def pose(
    rng: random.Random, kind: str, language: Language, split: Split, slots: dict[str, str]
) -> Posed:
    """A question of `kind` in one of the split's phrasings, with `slots` filled in."""
    pattern = rng.choice(WORDINGS[language].of(kind, split))
    text = fill(pattern, rng, slots)
    if language == "en":
        text = _WRONG_A.sub(r"\1n ", _WRONG_AN.sub(r"\1 ", text))
    return Posed(text, f"{language}:{kind}:{pattern}")


def fill(pattern: str, rng: random.Random, slots: dict[str, str]) -> str:
    """A pattern read once, its slots filled, its spaces and first letter put right."""
    text = expand(pattern, rng)
    for slot, value in slots.items():
        text = text.replace("{" + slot + "}", value)
    for mark in "?:;,.":
        text = text.replace(" " + mark, mark)
    return capital(" ".join(text.split(" ")).strip())


def politely(rng: random.Random, language: Language, text: str) -> str:
    """The question as someone types it, now and then with a greeting or a word after it."""
    if rng.random() < 0.2:
        text = f"{rng.choice(_OPENINGS[language])} {text}"
    if rng.random() < 0.1:
        text = f"{text} {rng.choice(_CLOSINGS[language])}"
    return roughen(text, rng)


def chat(rng: random.Random, language: Language, *turns: str) -> tuple[dict[str, str], ...]:
    """OpenAI messages of user and assistant turns by turns, one in five with a system prompt."""
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": turn} for at, turn in enumerate(turns)]
    if rng.random() < 0.2:
        messages.insert(0, {"role": "system", "content": rng.choice(_SYSTEM[language])})
    return tuple(messages)


def patient(rng: random.Random, language: Language, sex: str | None = None) -> str:
    """Someone of a sex and an adult age, without an article: "52-year-old woman"."""
    age = rng.randint(18, 90)
    chosen = sex or rng.choice(("man", "woman"))
    if language == "pt":
        return f"{'homem' if chosen == 'man' else 'mulher'} de {age} anos"
    return f"{age}-year-old {chosen}"


def with_article(who: str) -> str:
    """An English patient with "a" or "an" before the age."""
    age = who.split("-")[0]
    return ("an " if age.startswith("8") or age in {"11", "18"} else "a ") + who
