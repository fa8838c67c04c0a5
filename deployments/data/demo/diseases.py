"""Lasting conditions: whom they meet, what they do to the measures, and what treatment gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.data.demo.measures import Sex


@dataclass(frozen=True, slots=True)
class Effect:
    """On one measure: at the onset, each year after it, and under full treatment."""

    onset: float
    per_year: float = 0.0
    treated: float = 0.0


@dataclass(frozen=True, slots=True)
class Drug:
    """A prescription as it is written; `times_a_day` 0 means when needed. `atc` is WHO's code."""

    atc: str
    display: str
    dose: str
    times_a_day: int


@dataclass(frozen=True, slots=True)
class Disease:
    """`likelihood` is that of having it, by age, sex and what else is there (keys of diseases)."""

    key: str
    icd10: str
    display: str
    effects: dict[str, Effect]
    drugs: tuple[Drug, ...]
    labs: tuple[str, ...]
    visits_a_year: float
    likelihood: Callable[[float, Sex, frozenset[str]], float]
    first_age: float = 0.0
    exam: str | None = None
    severe: tuple[str, str] | None = None
    goal: str = ""
    worst: dict[str, float] = field(default_factory=dict)


def _rise(age: float, begin: float, full: float, most: float) -> float:
    """0 before `begin`, `most` from `full` on, a straight line between."""
    return most * min(max((age - begin) / (full - begin), 0.0), 1.0)


_LIPIDS = ("cholesterol", "hdl", "triglycerides")
_RENAL = ("creatinine", "potassium", "sodium")

HYPERTENSION = Disease(
    "hypertension",
    "I10",
    "Hipertensão essencial (primária)",
    {"systolic": Effect(28, 0.7, -24), "diastolic": Effect(15, 0.2, -13), "egfr": Effect(0, -0.4)},
    (
        Drug("C09CA01", "Losartana potássica 50 mg, comprimido", "1 comprimido", 2),
        Drug("C03AA03", "Hidroclorotiazida 25 mg, comprimido", "1 comprimido pela manhã", 1),
        Drug("C08CA01", "Anlodipino 5 mg, comprimido", "1 comprimido", 1),
    ),
    (*_RENAL, *_LIPIDS, "glucose"),
    2.2,
    lambda age, _sex, others: _rise(age, 28, 72, 0.58) + (0.15 if "obesity" in others else 0),
    first_age=25,
    exam="ecg",
    goal="Meta pressórica abaixo de 140/90 mmHg.",
)
DIABETES = Disease(
    "diabetes",
    "E11.9",
    "Diabetes mellitus não-insulino-dependente, sem complicações",
    {
        "hba1c": Effect(3.1, 0.1, -2.0),
        "glucose": Effect(84, 3.0, -58),
        "albuminuria": Effect(18, 6),
        "egfr": Effect(0, -0.8),
        "triglycerides": Effect(40, 0, -12),
    },
    (
        Drug("A10BA02", "Metformina 850 mg, comprimido", "1 comprimido após as refeições", 2),
        Drug("A10BB09", "Gliclazida 30 mg, comprimido de liberação prolongada", "1 comprimido", 1),
        Drug("A10BK01", "Dapagliflozina 10 mg, comprimido", "1 comprimido", 1),
    ),
    ("hba1c", "glucose", "albuminuria", *_RENAL, *_LIPIDS),
    3.0,
    lambda age, _sex, others: _rise(age, 32, 70, 0.2) + (0.12 if "obesity" in others else 0),
    first_age=30,
    goal="Meta de hemoglobina glicada abaixo de 7 %.",
)
KIDNEY = Disease(
    "kidney",
    "N18.3",
    "Doença renal crônica, estágio 3",
    {
        "egfr": Effect(-28, -1.8, 4),
        "potassium": Effect(0.4, 0.03),
        "hemoglobin": Effect(-1.3, -0.1),
        "albuminuria": Effect(160, 20, -60),
        "systolic": Effect(8, 0, -4),
    },
    (Drug("C09AA02", "Enalapril 10 mg, comprimido", "1 comprimido", 2),),
    (*_RENAL, "albuminuria", "hemoglobin", "ferritin"),
    3.2,
    lambda age, _sex, others: (
        _rise(age, 45, 85, 0.08) + 0.12 * len(others & {"hypertension", "diabetes"})
        if age >= 45
        else 0.0
    ),
    first_age=42,
    goal="Evitar anti-inflamatórios; controlar potássio e pressão.",
)
LUNG = Disease(
    "copd",
    "J44.9",
    "Doença pulmonar obstrutiva crônica não especificada",
    {
        "saturation": Effect(-3.6, -0.15, 1.0),
        "respiration": Effect(3.2, 0.1, -1.0),
        "fev1": Effect(-0.9, -0.05, 0.15),
        "fev1_ratio": Effect(-22, -0.5, 2),
    },
    (
        Drug("R03BB04", "Tiotrópio 2,5 mcg, solução para inalação", "2 inalações", 1),
        Drug("R03AC02", "Salbutamol 100 mcg, aerossol", "2 jatos se falta de ar", 0),
    ),
    ("leukocytes", "hemoglobin", "crp"),
    2.6,
    lambda age, _sex, _others: _rise(age, 45, 72, 0.13),
    first_age=45,
    exam="spirometry",
    severe=("J44.1", "Doença pulmonar obstrutiva crônica com exacerbação aguda"),
    goal="Cessar tabagismo; vacinação contra influenza em dia.",
    worst={"saturation": -7, "respiration": 9, "heart_rate": 20, "crp": 55, "leukocytes": 5},
)
ASTHMA = Disease(
    "asthma",
    "J45.9",
    "Asma não especificada",
    {
        "respiration": Effect(1.4, 0, -1.0),
        "saturation": Effect(-0.7, 0, 0.5),
        "fev1": Effect(-0.45, 0, 0.3),
        "fev1_ratio": Effect(-11, 0, 7),
    },
    (
        Drug("R03BA02", "Budesonida 200 mcg, pó para inalação", "1 inalação", 2),
        Drug("R03AC02", "Salbutamol 100 mcg, aerossol", "2 jatos se falta de ar", 0),
    ),
    ("leukocytes",),
    1.6,
    lambda age, _sex, others: 0.0 if "copd" in others else (0.12 if age < 40 else 0.06),
    first_age=4,
    exam="spirometry",
    severe=("J46", "Estado de mal asmático"),
    goal="Técnica inalatória revisada; plano de ação entregue.",
    worst={"saturation": -6, "respiration": 12, "heart_rate": 28, "leukocytes": 2},
)
HEART_FAILURE = Disease(
    "heart_failure",
    "I50.0",
    "Insuficiência cardíaca congestiva",
    {
        "bnp": Effect(640, 30, -380),
        "heart_rate": Effect(12, 0.2, -10),
        "systolic": Effect(-6, -0.5),
        "weight": Effect(3, 0, -2.5),
        "sodium": Effect(-2, -0.2),
        "egfr": Effect(-6, -1.0),
    },
    (
        Drug("C07AG02", "Carvedilol 12,5 mg, comprimido", "1 comprimido", 2),
        Drug("C03CA01", "Furosemida 40 mg, comprimido", "1 comprimido pela manhã", 1),
        Drug("C03DA01", "Espironolactona 25 mg, comprimido", "1 comprimido", 1),
    ),
    ("bnp", *_RENAL, "hemoglobin"),
    3.6,
    lambda age, _sex, others: _rise(age, 50, 85, 0.08) + (0.05 if "hypertension" in others else 0),
    first_age=48,
    exam="ecg",
    severe=("I50.9", "Insuficiência cardíaca não especificada"),
    goal="Peso diário em casa; restringir sódio.",
    worst={"saturation": -6, "respiration": 8, "heart_rate": 22, "bnp": 1100, "weight": 4},
)
LIPIDS = Disease(
    "lipids",
    "E78.5",
    "Hiperlipidemia não especificada",
    {
        "cholesterol": Effect(66, 0.5, -72),
        "triglycerides": Effect(62, 0, -34),
        "hdl": Effect(-5, 0, 2),
    },
    (Drug("C10AA01", "Sinvastatina 40 mg, comprimido", "1 comprimido à noite", 1),),
    _LIPIDS,
    1.0,
    lambda age, _sex, others: _rise(age, 30, 65, 0.3) + (0.1 if "diabetes" in others else 0),
    first_age=28,
    goal="Dieta e atividade física; repetir perfil lipídico em seis meses.",
)
THYROID = Disease(
    "thyroid",
    "E03.9",
    "Hipotireoidismo não especificado",
    {"tsh": Effect(9.5, 0, -9.4), "heart_rate": Effect(-4, 0, 3), "weight": Effect(3, 0, -2)},
    (Drug("H03AA01", "Levotiroxina sódica 75 mcg, comprimido", "1 comprimido em jejum", 1),),
    ("tsh",),
    1.2,
    lambda age, sex, _others: _rise(age, 25, 65, 0.13 if sex == "female" else 0.03),
    first_age=22,
    goal="Manter TSH entre 0,4 e 4,5 mUI/L.",
)
OBESITY = Disease(
    "obesity",
    "E66.9",
    "Obesidade não especificada",
    {"weight": Effect(26, 0.4, -3), "systolic": Effect(5), "glucose": Effect(5), "hdl": Effect(-4)},
    (),
    ("glucose", *_LIPIDS),
    1.0,
    lambda age, _sex, _others: _rise(age, 16, 45, 0.24),
    first_age=18,
    goal="Perda de peso gradual, de 5 a 10 % em seis meses.",
)
ANAEMIA = Disease(
    "anaemia",
    "D50.9",
    "Anemia por deficiência de ferro não especificada",
    {"hemoglobin": Effect(-3.2, 0, 2.9), "ferritin": Effect(-62, 0, 45)},
    (Drug("B03AA07", "Sulfato ferroso 40 mg de ferro elementar", "1 comprimido em jejum", 2),),
    ("hemoglobin", "ferritin"),
    2.0,
    lambda age, sex, _others: 0.1 if sex == "female" and 14 <= age < 52 else 0.025,
    first_age=12,
    goal="Repetir hemograma em três meses.",
)
ANXIETY = Disease(
    "anxiety",
    "F41.1",
    "Ansiedade generalizada",
    {"heart_rate": Effect(5, 0, -3)},
    (Drug("N06AB06", "Sertralina 50 mg, comprimido", "1 comprimido pela manhã", 1),),
    (),
    2.0,
    lambda age, sex, _others: 0.0 if age < 16 else 0.13 if sex == "female" else 0.06,
    first_age=16,
    goal="Psicoterapia; reavaliar em oito semanas.",
)

# In the order in which they are drawn: a later one can depend on an earlier one.
DISEASES = (
    *(OBESITY, HYPERTENSION, DIABETES, LIPIDS, KIDNEY, HEART_FAILURE, LUNG, ASTHMA),
    *(THYROID, ANAEMIA, ANXIETY),
)
BY_KEY = {disease.key: disease for disease in DISEASES}
