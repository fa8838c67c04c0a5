"""What is asked: clinical text in Portuguese and English, the same for one seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

Mix = Literal["short", "mixed", "long", "shared-prefix"]
MIXES: tuple[Mix, ...] = get_args(Mix)

_SENTENCES = (
    "Paciente de {age} anos com dor torácica há {n} horas e pressão de {sys} por {dia} mmHg.",
    "Frequência cardíaca de {hr} batimentos por minuto e saturação de {spo} por cento.",
    "Nega alergias; usa losartana {dose} mg e metformina {dose2} mg duas vezes ao dia.",
    "Ausculta com murmúrio vesicular presente e creatinina de {n},{dia} mg por decilitro.",
    "Queixa-se de cefaleia e febre de 38,{n} graus há {n} dias, sem rigidez de nuca.",
    "The patient is {age} years old with shortness of breath for {n} days.",
    "Blood pressure {sys} over {dia}, heart rate {hr}, oxygen saturation {spo} percent.",
    "Takes warfarin {n} mg daily and was given amoxicillin {dose} mg this week.",
    "Potassium is {n}.{spo} and haemoglobin 1{n}.2; the abdomen is soft without guarding.",
    "Pain in the left knee for {n} weeks, worse on stairs, without fever or swelling.",
)
_QUESTIONS = (
    "Quais são as hipóteses e a conduta inicial?",
    "Escreva uma nota SOAP deste atendimento.",
    "What are the likely causes and the next steps?",
    "Write a SOAP note for this visit.",
)
_SHARED_PREFIX_WORDS = 300


@dataclass(frozen=True, slots=True)
class Shape:
    """How long a prompt is, in words of its text, and how many tokens its answer may have."""

    words: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question with the length of answer that it asks for."""

    messages: tuple[tuple[str, str], ...]
    max_tokens: int

    def as_openai(self) -> list[dict[str, str]]:
        return [{"role": role, "content": content} for role, content in self.messages]


# For each mix the shapes that it draws from, all equally often.
SHAPES: dict[Mix, tuple[Shape, ...]] = {
    "short": (Shape(24, 64),),
    "mixed": (Shape(16, 32), Shape(16, 192), Shape(80, 64), Shape(240, 96), Shape(500, 32)),
    "long": (Shape(800, 64),),
    "shared-prefix": (Shape(24, 64),),
}


def prompts(mix: Mix, seed: int | str, max_tokens: int | None = None) -> Iterator[Prompt]:
    """An endless, repeatable supply, no two alike from their first words on.

    `max_tokens` overrides the mix's own answer lengths. In `shared-prefix` all of one seed begin
    with the same system prompt.
    """
    chance = random.Random(f"{mix}/{seed}")
    system = _system(chance) if mix == "shared-prefix" else None
    while True:
        shape = chance.choice(SHAPES[mix])
        yield _prompt(chance, Shape(shape.words, max_tokens or shape.max_tokens), system)


def prompts_of(shapes: Iterable[Shape], seed: int, *, shared_prefix: bool = False) -> list[Prompt]:
    """One prompt of each shape, repeatable by seed."""
    chance = random.Random(f"shapes/{seed}")
    system = _system(chance) if shared_prefix else None
    return [_prompt(chance, shape, system) for shape in shapes]


def _system(chance: random.Random) -> str:
    return f"Protocolo {chance.randrange(10**6)}. {_text(chance, _SHARED_PREFIX_WORDS)}"


def _prompt(chance: random.Random, shape: Shape, system: str | None) -> Prompt:
    text = f"Caso {chance.randrange(10**9)}. {_text(chance, shape.words)}"
    question = ("user", f"{text} {chance.choice(_QUESTIONS)}")
    messages = (question,) if system is None else (("system", system), question)
    return Prompt(messages, shape.max_tokens)


def _text(chance: random.Random, words: int) -> str:
    """About `words` words: whole sentences until there are enough, the last one cut."""
    found: list[str] = []
    while len(found) < words:
        sentence = chance.choice(_SENTENCES).format(
            age=chance.randint(18, 95),
            n=chance.randint(2, 9),
            sys=chance.randint(90, 190),
            dia=chance.randint(50, 99),
            hr=chance.randint(45, 140),
            spo=chance.randint(80, 99),
            dose=chance.choice((25, 50, 100, 250, 500)),
            dose2=chance.choice((500, 850, 1000)),
        )
        found.extend(sentence.split())
    return " ".join(found[:words])
