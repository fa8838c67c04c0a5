"""Invented people: who they are, what they have, and since when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from random import Random

from deployments.data.demo import names
from deployments.data.demo.diseases import DISEASES, Disease
from deployments.data.demo.identifiers import cns, cpf
from deployments.data.demo.measures import Sex, growth

DAYS_A_YEAR = 365.25


@dataclass(frozen=True, slots=True)
class Address:
    line: str
    district: str
    city: str
    state: str
    postal_code: str


@dataclass(frozen=True, slots=True)
class Illness:
    """A disease of one person. `adherence` scales what treatment gives back."""

    disease: Disease
    onset: date
    adherence: float


@dataclass(frozen=True, slots=True)
class Allergy:
    system: str
    code: str
    display: str
    reaction: str
    severity: str
    category: str


@dataclass(frozen=True, slots=True)
class Pregnancy:
    """`begun` is the first day of the last menstruation; `ended` is a birth, or still to come."""

    begun: date
    ended: date | None


@dataclass(frozen=True, slots=True)
class Person:
    """Baselines are this person's own healthy values at `as_of`; see courses.py."""

    number: int
    given: tuple[str, ...]
    family: str
    sex: Sex
    born: date
    cpf: str
    cns: str
    phone: str
    address: Address
    illnesses: tuple[Illness, ...]
    allergies: tuple[Allergy, ...]
    pregnancy: Pregnancy | None
    refuses_ai: bool
    baselines: dict[str, float]

    def age(self, on: date) -> float:
        """In years."""
        return (on - self.born).days / DAYS_A_YEAR

    def diseases(self) -> frozenset[str]:
        """Keys of the diseases."""
        return frozenset(illness.disease.key for illness in self.illnesses)


ATC = "http://www.whocc.no/atc"
_OTHER = "urn:medical-record:demo:allergen"
ALLERGIES = (
    Allergy(ATC, "J01C", "Penicilinas", "Exantema pruriginoso", "moderate", "medication"),
    Allergy(ATC, "M01AE01", "Ibuprofeno", "Angioedema", "severe", "medication"),
    Allergy(ATC, "N02BB02", "Dipirona", "Urticária", "moderate", "medication"),
    Allergy(_OTHER, "camarao", "Camarão", "Edema de lábios", "severe", "food"),
    Allergy(_OTHER, "leite", "Leite de vaca", "Vômitos e diarreia", "mild", "food"),
    Allergy(_OTHER, "latex", "Látex", "Dermatite de contato", "mild", "environment"),
)

# Parts of the population by age, so that all ages appear and the old ones, who fill a hospital,
# more often than in the street.
_AGES = (
    (0.2, 2, 5),
    (2, 12, 11),
    (12, 18, 8),
    (18, 40, 26),
    (40, 60, 24),
    (60, 75, 17),
    (75, 97, 9),
)


def person(seed: int, number: int, as_of: date) -> Person:
    """Person `number` of the population `seed`, always the same one."""
    chance = Random(f"person {seed} {number}")
    sex: Sex = "female" if chance.random() < 0.54 else "male"
    low, high, _ = chance.choices(_AGES, [weight for *_, weight in _AGES])[0]
    age = chance.uniform(low, high)
    born = as_of - timedelta(days=round(age * DAYS_A_YEAR))
    first = chance.choice(names.FEMALE if sex == "female" else names.MALE)
    families = chance.sample(names.FAMILY, 2)
    town, state, postal, area = chance.choice(names.TOWNS)
    street = f"{chance.choice(names.STREET_KINDS)} {chance.choice(names.STREETS)}"
    illnesses = _illnesses(chance, age, sex, born, as_of)
    return Person(
        number=number,
        given=tuple(first.split(" ", 1)),
        family=" ".join(families),
        sex=sex,
        born=born,
        cpf=cpf(chance),
        cns=cns(chance),
        phone=f"+55 {area} 90000-{chance.randrange(10_000):04d}",
        address=Address(
            *(f"{street}, {chance.randrange(1, 2400)}", chance.choice(names.DISTRICTS)),
            *(town, state, f"{postal}-{chance.randrange(1000):03d}"),
        ),
        illnesses=illnesses,
        allergies=_allergies(chance),
        pregnancy=None if illnesses else _pregnancy(chance, age, sex, as_of),
        refuses_ai=chance.random() < 0.07,
        baselines=_baselines(chance, age, sex),
    )


def _allergies(chance: Random) -> tuple[Allergy, ...]:
    count = chance.choices((0, 1, 2), (72, 22, 6))[0]
    return tuple(chance.sample(ALLERGIES, count))


def _illnesses(
    chance: Random, age: float, sex: Sex, born: date, as_of: date
) -> tuple[Illness, ...]:
    found: list[Illness] = []
    for disease in DISEASES:
        draw, years, adherence = chance.random(), chance.uniform(0.6, 11), chance.uniform(0.45, 1)
        others = frozenset(illness.disease.key for illness in found)
        if age <= disease.first_age or draw >= disease.likelihood(age, sex, others):
            continue
        onset_age = max(disease.first_age, age - years)
        onset = min(born + timedelta(days=round(onset_age * DAYS_A_YEAR)), as_of)
        found.append(Illness(disease, onset, adherence))
    return tuple(found)


def _pregnancy(chance: Random, age: float, sex: Sex, as_of: date) -> Pregnancy | None:
    draw, weeks_ago, length = chance.random(), chance.uniform(8, 120), chance.uniform(37.5, 41)
    if sex != "female" or not 19 <= age < 42 or draw >= 0.34:
        return None
    begun = as_of - timedelta(weeks=weeks_ago)
    ended = begun + timedelta(weeks=length)
    return Pregnancy(begun, ended if ended < as_of else None)


def _baselines(chance: Random, age: float, sex: Sex) -> dict[str, float]:
    """A healthy person's own values; those that depend on age are at the age of now."""
    draw, female = chance.gauss, sex == "female"
    height = draw(161, 6) if female else draw(174, 7)
    if age < 18:
        height = growth(age, sex)[0] * draw(1, 0.03)
    body_mass = min(max(draw(24.4, 2.3), 18.2), 29.5)
    child = min(age, 18) / 18
    return {
        "height": height,
        "bmi": body_mass,
        "build": min(max(draw(1, 0.1), 0.82), 1.28),
        "systolic": 88 + 24 * child + 0.25 * max(age - 25, 0) + draw(0, 6),
        "diastolic": 54 + 17 * child + 0.08 * max(age - 25, 0) + draw(0, 4),
        "heart_rate": 128 - 56 * min(age / 16, 1) + draw(0, 6),
        "respiration": 32 - 16 * min(age / 14, 1) + draw(0, 1),
        "temperature": draw(36.5, 0.15),
        "saturation": draw(97.6, 0.5),
        "hba1c": draw(5.25, 0.2),
        "glucose": draw(89, 6),
        "egfr": min(max(118 - 0.78 * max(age - 20, 0) + draw(0, 6), 64), 128),
        "albuminuria": max(draw(9, 4), 2),
        "potassium": draw(4.3, 0.2),
        "sodium": draw(140, 1.2),
        "cholesterol": draw(178, 18),
        "hdl": draw(55, 7) if female else draw(47, 6),
        "triglycerides": max(draw(108, 24), 50),
        "hemoglobin": draw(13.3, 0.5) if female else draw(14.8, 0.6),
        "leukocytes": max(draw(6.8, 1), 4.2),
        "platelets": draw(245, 34),
        "ferritin": max(draw(80, 25), 32),
        "crp": max(draw(1.6, 0.8), 0.3),
        "tsh": min(max(draw(2.0, 0.5), 0.7), 3.9),
        "bnp": max(draw(28, 9), 6),
        "fev1": max((2.9 if female else 3.7) - 0.024 * max(age - 25, 0) + draw(0, 0.25), 1.4),
        "fev1_ratio": draw(81, 2.5) - 0.12 * max(age - 30, 0),
    }
