"""Illnesses that pass, and which drug is given in place of one that would do harm."""

from __future__ import annotations

from dataclasses import dataclass

from deployments.data.demo.diseases import Drug
from deployments.data.demo.people import Person


@dataclass(frozen=True, slots=True)
class Episode:
    """An illness that passes: days it lasts, what it does to the measures while it does."""

    icd10: str
    display: str
    days: int
    effects: dict[str, float]
    drugs: tuple[Drug, ...]
    ages: tuple[float, float] = (0, 120)
    exam: str | None = None


_PAIN = Drug("N02BE01", "Paracetamol 500 mg, comprimido", "1 comprimido se dor ou febre", 0)
_AMOXICILLIN = Drug("J01CA04", "Amoxicilina 500 mg, cápsula", "1 cápsula por sete dias", 3)

_FOSFOMYCIN = Drug("J01XX01", "Fosfomicina trometamol 3 g, granulado", "Dose única", 1)
_IBUPROFEN = Drug("M01AE01", "Ibuprofeno 600 mg, comprimido", "1 comprimido por cinco dias", 3)
_OMEPRAZOLE = Drug("A02BC01", "Omeprazol 20 mg, cápsula", "1 cápsula em jejum", 1)

EPISODES = (
    Episode(
        "J06.9",
        "Infecção aguda das vias aéreas superiores não especificada",
        7,
        {"temperature": 1.2, "heart_rate": 10, "leukocytes": 1.5, "crp": 8},
        (_PAIN,),
    ),
    Episode(
        "A90",
        "Dengue [dengue clássico]",
        9,
        {"temperature": 2.2, "heart_rate": 16, "leukocytes": -3.2, "platelets": -120, "crp": 6},
        (_PAIN,),
        ages=(5, 90),
    ),
    Episode(
        "N39.0",
        "Infecção do trato urinário de localização não especificada",
        7,
        {"temperature": 0.6, "leukocytes": 3.5, "crp": 22},
        (_FOSFOMYCIN,),
        ages=(12, 95),
    ),
    Episode(
        "J18.9",
        "Pneumonia não especificada",
        14,
        {
            **{"temperature": 1.9, "heart_rate": 20, "respiration": 7},
            **{"saturation": -4, "leukocytes": 7, "crp": 95},
        },
        (_AMOXICILLIN,),
        ages=(1, 95),
        exam="chest",
    ),
    Episode(
        "H66.9",
        "Otite média não especificada",
        10,
        {"temperature": 1.4, "heart_rate": 12, "leukocytes": 3},
        (_AMOXICILLIN,),
        ages=(0.5, 12),
    ),
    Episode("M54.5", "Dor lombar baixa", 14, {"heart_rate": 4}, (_IBUPROFEN,), ages=(18, 80)),
    Episode("K29.7", "Gastrite não especificada", 30, {}, (_OMEPRAZOLE,), ages=(18, 85)),
    Episode("G43.9", "Enxaqueca não especificada", 2, {"heart_rate": 3}, (_PAIN,), ages=(12, 60)),
)

FOLIC_ACID = Drug("B03BB01", "Ácido fólico 5 mg, comprimido", "1 comprimido", 1)
_INSTEAD = {
    "J01CA04": Drug("J01FA10", "Azitromicina 500 mg, comprimido", "1 comprimido", 1),
    "M01AE01": _PAIN,
    "C07AG02": Drug("C07AB07", "Bisoprolol 2,5 mg, comprimido", "1 comprimido", 1),
}


def safe(drug: Drug, person: Person) -> Drug | None:
    """`drug`, what is given to this person in its place, or None where nothing should be.

    Held back: a class that the person is allergic to, anti-inflammatories from failing kidneys and
    hearts, non-selective beta blockers from narrow lungs, an ACE inhibitor on top of losartan, and
    spironolactone from failing kidneys.
    """
    diseases = person.diseases()
    allergic = any(drug.atc.startswith(allergy.code) for allergy in person.allergies)
    harmful = (
        (drug.atc == "M01AE01" and bool(diseases & {"kidney", "heart_failure"}))
        or (drug.atc == "C07AG02" and bool(diseases & {"asthma", "copd"}))
        or (drug.atc == "C09AA02" and "hypertension" in diseases)
        or (drug.atc == "C03DA01" and "kidney" in diseases)
    )
    return _INSTEAD.get(drug.atc) if allergic or harmful else drug
