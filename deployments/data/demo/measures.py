"""What is measured of a patient: LOINC codes, units, possible and usual values, and the formulas
that tie measures to each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Sex = Literal["female", "male"]
Category = Literal["vital-signs", "laboratory", "exam"]


@dataclass(frozen=True, slots=True)
class Measure:
    """`low` and `high` bound what a living patient can have; `usual` is an adult's reference."""

    key: str
    loinc: str
    display: str
    unit: str
    ucum: str
    decimals: int
    low: float
    high: float
    usual: tuple[float | None, float | None] | None
    category: Category

    def rounded(self, value: float) -> float:
        """The value as it would be written down, within what is possible."""
        bounded = min(max(value, self.low), self.high)
        return round(bounded, self.decimals) if self.decimals else float(round(bounded))


def _vital(
    key: str, loinc: str, display: str, unit: str, ucum: str, decimals: int, *bounds: float
) -> Measure:
    low, high, *usual = bounds
    return Measure(
        *(key, loinc, display, unit, ucum, decimals, low, high),
        (usual[0], usual[1]) if usual else None,
        "vital-signs",
    )


def _lab(
    key: str,
    loinc: str,
    display: str,
    unit: str,
    ucum: str,
    decimals: int,
    possible: tuple[float, float],
    usual: tuple[float | None, float | None],
) -> Measure:
    return Measure(key, loinc, display, unit, ucum, decimals, *possible, usual, "laboratory")


def _exam(
    key: str, loinc: str, display: str, unit: str, ucum: str, decimals: int, *bounds: float
) -> Measure:
    low, high, *least = bounds
    usual = (least[0], None) if least else None
    return Measure(key, loinc, display, unit, ucum, decimals, low, high, usual, "exam")


_MG_DL = ("mg/dL", "mg/dL")

_ALL = (
    _vital("systolic", "8480-6", "Pressão arterial sistólica", "mmHg", "mm[Hg]", 0, 60, 240),
    _vital("diastolic", "8462-4", "Pressão arterial diastólica", "mmHg", "mm[Hg]", 0, 30, 140),
    _vital("heart_rate", "8867-4", "Frequência cardíaca", "bpm", "/min", 0, 35, 190),
    _vital("respiration", "9279-1", "Frequência respiratória", "irpm", "/min", 0, 8, 60),
    _vital("temperature", "8310-5", "Temperatura corporal", "°C", "Cel", 1, 34, 41.5, 35.5, 37.7),
    _vital("saturation", "59408-5", "Saturação de oxigênio", "%", "%", 0, 70, 100, 94, 100),
    _vital("weight", "29463-7", "Peso corporal", "kg", "kg", 1, 2.2, 220),
    _vital("height", "8302-2", "Altura corporal", "cm", "cm", 0, 44, 210),
    _vital("bmi", "39156-5", "Índice de massa corporal", "kg/m²", "kg/m2", 1, 9, 75),
    _lab("hba1c", "4548-4", "Hemoglobina glicada", "%", "%", 1, (3.8, 16), (4.0, 5.7)),
    _lab("glucose", "1558-6", "Glicemia de jejum", *_MG_DL, 0, (45, 480), (70, 99)),
    _lab("creatinine", "2160-0", "Creatinina", *_MG_DL, 2, (0.2, 13), (0.5, 1.3)),
    _lab(
        "egfr",
        "98979-8",
        "Taxa de filtração glomerular estimada (CKD-EPI 2021)",
        "mL/min/1,73 m²",
        "mL/min/{1.73_m2}",
        0,
        (4, 150),
        (60, None),
    ),
    _lab(
        "albuminuria",
        "9318-7",
        "Albumina/creatinina na urina",
        "mg/g",
        "mg/g",
        0,
        (1, 4500),
        (None, 30),
    ),
    _lab("potassium", "2823-3", "Potássio", "mmol/L", "mmol/L", 1, (2.4, 7.2), (3.5, 5.1)),
    _lab("sodium", "2951-2", "Sódio", "mmol/L", "mmol/L", 0, (118, 160), (136, 145)),
    _lab("cholesterol", "2093-3", "Colesterol total", *_MG_DL, 0, (80, 420), (None, 190)),
    _lab("hdl", "2085-9", "Colesterol HDL", *_MG_DL, 0, (18, 105), (40, None)),
    _lab("ldl", "13457-7", "Colesterol LDL calculado", *_MG_DL, 0, (20, 330), (None, 130)),
    _lab("triglycerides", "2571-8", "Triglicerídeos", *_MG_DL, 0, (35, 390), (None, 150)),
    _lab("hemoglobin", "718-7", "Hemoglobina", "g/dL", "g/dL", 1, (4.5, 20), (12.0, 17.5)),
    _lab("leukocytes", "6690-2", "Leucócitos", "10³/µL", "10*3/uL", 1, (1.2, 45), (4.0, 11.0)),
    _lab("platelets", "777-3", "Plaquetas", "10³/µL", "10*3/uL", 0, (12, 900), (150, 450)),
    _lab("ferritin", "2276-4", "Ferritina", "ng/mL", "ng/mL", 0, (2, 1500), (15, 300)),
    _lab("crp", "1988-5", "Proteína C reativa", "mg/L", "mg/L", 1, (0.1, 350), (None, 5.0)),
    _lab("tsh", "3016-3", "TSH", "mUI/L", "m[IU]/L", 2, (0.05, 60), (0.4, 4.5)),
    _lab("bnp", "30934-4", "BNP", "pg/mL", "pg/mL", 0, (3, 4800), (None, 100)),
    _exam("fev1", "20150-9", "Volume expiratório forçado no 1º segundo", "L", "L", 2, 0.4, 6.0),
    _exam("fev1_ratio", "19926-5", "Relação VEF1/CVF", "%", "%", 0, 25, 98, 70),
    _exam("gestation", "49051-6", "Idade gestacional", "semanas", "wk", 0, 4, 42),
    _exam("fundal_height", "11881-0", "Altura uterina", "cm", "cm", 0, 8, 44),
    _exam("fetal_heart_rate", "55283-6", "Frequência cardíaca fetal", "bpm", "/min", 0, 90, 200),
)
MEASURES = {measure.key: measure for measure in _ALL}


def egfr(creatinine: float, age: float, sex: Sex) -> float:
    """mL/min/1.73 m² from creatinine in mg/dL: CKD-EPI 2021 (Inker et al., NEJM 385:1737), adults."""
    kappa, alpha, factor = (0.7, -0.241, 1.012) if sex == "female" else (0.9, -0.302, 1.0)
    ratio = creatinine / kappa
    value: float = 142 * min(ratio, 1) ** alpha * max(ratio, 1) ** -1.2 * 0.9938**age * factor
    return value


def creatinine(filtration: float, age: float, sex: Sex) -> float:
    """The creatinine in mg/dL whose `egfr` is `filtration`."""
    kappa, alpha, factor = (0.7, -0.241, 1.012) if sex == "female" else (0.9, -0.302, 1.0)
    ratio = filtration / (142 * 0.9938**age * factor)
    value: float = kappa * (ratio ** (1 / alpha) if ratio >= 1 else ratio ** (-1 / 1.2))
    return value


def ldl(cholesterol: float, hdl: float, triglycerides: float) -> float:
    """mg/dL by Friedewald (Clin Chem 18:499), for triglycerides below 400."""
    return cholesterol - hdl - triglycerides / 5


def bmi(weight_kg: float, height_cm: float) -> float:
    """kg/m²."""
    return weight_kg / (height_cm / 100) ** 2


# Age in years: height in cm and weight in kg, about the medians of WHO's growth standards.
_GROWTH: dict[Sex, tuple[tuple[float, float, float], ...]] = {
    "female": (
        *((0, 49, 3.2), (0.5, 65.7, 7.3), (1, 74, 8.9), (2, 86.4, 11.5), (3, 95.1, 13.9)),
        *((5, 109.4, 18.2), (7, 120.8, 22.4), (9, 132.5, 28.2), (11, 145, 37), (13, 156.4, 46)),
        *((15, 161.7, 52), (18, 163, 56)),
    ),
    "male": (
        *((0, 50, 3.3), (0.5, 67.6, 7.9), (1, 75.7, 9.6), (2, 87.8, 12.2), (3, 96.1, 14.3)),
        *((5, 110, 18.3), (7, 121.7, 22.9), (9, 132.6, 28.1), (11, 143.1, 35.6), (13, 156, 45)),
        *((15, 169, 56), (18, 176, 66)),
    ),
}


def growth(age: float, sex: Sex) -> tuple[float, float]:
    """Median height in cm and weight in kg of a child; straight lines between the table's ages."""
    table = _GROWTH[sex]
    for (a, h0, w0), (b, h1, w1) in pairwise(table):
        if age <= b:
            part = max(0.0, (age - a) / (b - a))
            return h0 + part * (h1 - h0), w0 + part * (w1 - w0)
    return table[-1][1], table[-1][2]
