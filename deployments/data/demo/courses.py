"""The course of a person's care: every visit with its reason and what was measured at it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, timedelta
from random import Random
from typing import Literal

from deployments.data.demo.diseases import Disease
from deployments.data.demo.episodes import EPISODES, Episode
from deployments.data.demo.measures import MEASURES, bmi, creatinine, egfr, growth, ldl
from deployments.data.demo.people import DAYS_A_YEAR, Illness, Person

Kind = Literal["check-up", "follow-up", "episode", "prenatal", "admission", "current"]

YEARS = 6.0
MAX_VISITS = 26
VITALS = ("systolic", "diastolic", "heart_rate", "saturation", "weight")
_BASIC_LABS = ("hemoglobin", "leukocytes", "platelets", "glucose", "cholesterol", "hdl")
# Spread from one visit to the next, of the same person in the same state.
_NOISE = {
    **{"systolic": 5.0, "diastolic": 3.0, "heart_rate": 3.5, "respiration": 0.8, "tsh": 0.2},
    **{"temperature": 0.12, "saturation": 0.4, "hba1c": 0.12, "glucose": 5.0, "egfr": 2.0},
    **{"albuminuria": 2.0, "potassium": 0.14, "sodium": 0.9, "cholesterol": 7.0, "hdl": 1.8},
    **{"triglycerides": 9.0, "hemoglobin": 0.22, "leukocytes": 0.5, "platelets": 11.0, "crp": 0.4},
    **{"ferritin": 5.0, "bnp": 6.0, "fev1": 0.06, "fev1_ratio": 1.0, "weight": 0.6},
}
_STAGE_3 = (30.0, 59.0)  # eGFR of N18.3, the one stage that is coded here
_TREATMENT_YEARS = 0.3  # until about two thirds of the treatment's effect are there


@dataclass(frozen=True, slots=True)
class Visit:
    """One encounter. `illnesses` are those that it is about, `values` by the key of the measure."""

    kind: Kind
    on: date
    until: date | None
    illnesses: tuple[Illness, ...]
    values: dict[str, float]
    episode: Episode | None = None
    exam: str | None = None


def course(seed: int, person: Person, as_of: date, *, current: bool) -> tuple[Visit, ...]:
    """Visits in order, the last one going on now if `current`. The same for the same arguments."""
    chance = Random(f"course {seed} {person.number}")
    begin = max(person.born, as_of - timedelta(days=round(YEARS * DAYS_A_YEAR)))
    planned = [
        *_routine(chance, person, begin, as_of),
        *_episodes(chance, person, begin, as_of),
        *_admissions(chance, person, begin, as_of),
        *_prenatal(person, begin, as_of),
    ]
    # One visit a day, and the latest of them if there are too many to tell.
    by_day = {visit.on: visit for visit in sorted(planned, key=lambda visit: visit.on)}
    visits = list(by_day.values())[-MAX_VISITS:]
    if current:
        day = as_of - timedelta(days=chance.randrange(1, 4))
        visits = [visit for visit in visits if (visit.until or visit.on) < day]
        visits.append(Visit("current", day, None, person.illnesses, {}))
    return tuple(replace(v, values=_measured(chance, person, v, as_of)) for v in visits)


def _routine(chance: Random, person: Person, begin: date, as_of: date) -> list[Visit]:
    """Check-ups every year, more in the first two; once ill as often as the illness asks for."""
    visits: list[Visit] = []
    day = begin + timedelta(days=chance.randrange(5, max(6, min(200, (as_of - begin).days))))
    while day < as_of:
        known = tuple(illness for illness in person.illnesses if illness.onset <= day)
        often = max((illness.disease.visits_a_year for illness in known), default=0.9)
        often = max(often, 4.0 if person.age(day) < 2 else 0.0)
        yearly = not visits or all((day - visit.on).days > 300 for visit in visits if visit.exam)
        exam = next((i.disease.exam for i in known if i.disease.exam), None) if yearly else None
        visits.append(Visit("follow-up" if known else "check-up", day, day, known, {}, exam=exam))
        if newly := [i.onset for i in person.illnesses if day < i.onset <= as_of]:
            # The visit at which an illness is found.
            upcoming = min(newly) + timedelta(days=1)
            day = min(upcoming, day + timedelta(days=round(DAYS_A_YEAR / often)))
            continue
        day += timedelta(days=round(DAYS_A_YEAR / often * chance.uniform(0.75, 1.3)))
    return visits


def _episodes(chance: Random, person: Person, begin: date, as_of: date) -> list[Visit]:
    visits: list[Visit] = []
    day = begin
    while True:
        day += timedelta(days=1 + round(chance.expovariate(0.55) * DAYS_A_YEAR))
        if day >= as_of:
            return visits
        fitting = [e for e in EPISODES if e.ages[0] <= person.age(day) <= e.ages[1]]
        episode = chance.choice(fitting)
        visits.append(Visit("episode", day, day, (), {}, episode, episode.exam))


def _admissions(chance: Random, person: Person, begin: date, as_of: date) -> list[Visit]:
    """Days in hospital when lungs or a heart get suddenly worse, about once in three years."""
    visits = []
    for illness in person.illnesses:
        if illness.disease.severe is None:
            continue
        day = max(begin, illness.onset)
        while (day := day + timedelta(days=30 + round(chance.expovariate(0.33) * 365))) < as_of:
            until = day + timedelta(days=chance.randrange(3, 9))
            if until < as_of:
                visits.append(Visit("admission", day, until, (illness,), {}))
    return visits


def _prenatal(person: Person, begin: date, as_of: date) -> list[Visit]:
    """Monthly until 28 weeks, then every second week, then weekly from 36 (Ministério da Saúde)."""
    if person.pregnancy is None:
        return []
    weeks = (8, 12, 16, 20, 24, 28, 30, 32, 34, 36, 37, 38, 39)
    visits = []
    for week in weeks:
        day = person.pregnancy.begun + timedelta(weeks=week)
        if begin <= day <= min(as_of, person.pregnancy.ended or as_of):
            exam = "ultrasound" if week in (12, 20, 32) else None
            visits.append(Visit("prenatal", day, day, (), {}, exam=exam))
    return visits


def _measured(chance: Random, person: Person, visit: Visit, as_of: date) -> dict[str, float]:
    """What this visit measures, each within what is possible and in keeping with the others."""
    age = person.age(visit.on)
    raw = {key: _level(person, key, visit, as_of) for key in (*person.baselines, "weight")}
    raw = {key: value + chance.gauss(0, _NOISE.get(key, 0.0)) for key, value in raw.items()}
    if "kidney" in {i.disease.key for i in person.illnesses if i.onset <= visit.on}:
        raw["egfr"] = min(max(raw["egfr"], _STAGE_3[0] + 0.6), _STAGE_3[1] - 0.6)
    raw |= _pregnant(chance, person, visit.on, raw)
    raw["diastolic"] = min(raw["diastolic"], raw["systolic"] - 18)
    raw["saturation"] = min(raw["saturation"], 99.4)
    raw["creatinine"] = creatinine(max(raw["egfr"], 5), age, person.sex)
    found = {key: MEASURES[key].rounded(raw[key]) for key in _keys(person, visit) if key in raw}
    # Derived from what is written down, as a laboratory's own computer would.
    if "weight" in found and "height" in raw:
        found["height"] = MEASURES["height"].rounded(raw["height"])
        found["bmi"] = MEASURES["bmi"].rounded(bmi(found["weight"], found["height"]))
    if "creatinine" in found and age >= 18:
        found["egfr"] = MEASURES["egfr"].rounded(egfr(found["creatinine"], age, person.sex))
    if {"cholesterol", "hdl", "triglycerides"} <= set(found):
        figures = (found["cholesterol"], found["hdl"], found["triglycerides"])
        found["ldl"] = MEASURES["ldl"].rounded(ldl(*figures))
    return found


def _keys(person: Person, visit: Visit) -> tuple[str, ...]:
    """Which measures a visit takes."""
    age = person.age(visit.on)
    vitals = VITALS if age >= 3 else ("heart_rate", "respiration", "weight")
    if age < 12 or visit.kind in ("episode", "admission", "current"):
        vitals = (*vitals, "temperature")
    labs: tuple[str, ...] = ()
    if visit.kind in ("follow-up", "admission", "current"):
        labs = tuple(key for illness in visit.illnesses for key in illness.disease.labs)
    elif visit.kind == "episode" and visit.episode is not None:
        labs = tuple(key for key in visit.episode.effects if key in ("leukocytes", "crp"))
        labs = (*labs, *(("platelets",) if "platelets" in visit.episode.effects else ()))
    elif visit.kind == "check-up" and age >= 18:
        labs = (*_BASIC_LABS, "triglycerides", "creatinine")
    elif visit.kind == "prenatal":
        labs = ("gestation", "fundal_height", "fetal_heart_rate")
        labs = (*labs, "hemoglobin", "glucose") if visit.exam else labs
    if any(illness.disease.key in ("copd", "asthma") for illness in visit.illnesses):
        vitals = (*vitals, "respiration")
    if visit.exam == "spirometry" and age >= 6:
        labs = (*labs, "fev1", "fev1_ratio")
    return tuple(dict.fromkeys((*vitals, *labs)))


def _level(person: Person, key: str, visit: Visit, as_of: date) -> float:
    """The value without noise on the visit's day: own baseline, age, illnesses, what is acute."""
    level = _healthy(person, key, visit.on, as_of)
    for illness in person.illnesses:
        if (effect := illness.disease.effects.get(key)) and illness.onset <= visit.on:
            years = (visit.on - illness.onset).days / DAYS_A_YEAR
            taken = 1 - math.exp(-years / _TREATMENT_YEARS)
            level += effect.onset + effect.per_year * years
            level += effect.treated * illness.adherence * taken
    if visit.episode is not None:
        level += visit.episode.effects.get(key, 0.0)
    if visit.kind == "admission":
        disease: Disease = visit.illnesses[0].disease
        level += disease.worst.get(key, 0.0)
    return level


def _healthy(person: Person, key: str, on: date, as_of: date) -> float:
    """The baseline carried from `as_of` back to the day: children grow, adults age."""
    then, now = person.age(on), person.age(as_of)
    base = person.baselines.get(key, 0.0)
    if key in ("height", "weight"):
        height, weight = growth(then, person.sex)
        if then >= 18 and key == "height":
            return base if now >= 18 else height
        if then < 18:
            scale = base / growth(min(now, 18), person.sex)[0] if key == "height" else 1.0
            return height * scale if key == "height" else weight * person.baselines["build"]
        return person.baselines["bmi"] * (person.baselines["height"] / 100) ** 2
    if key in ("heart_rate", "respiration") and then < 16:
        return base + (3.4 if key == "heart_rate" else 1.1) * (min(now, 16) - then)
    if key in ("systolic", "diastolic") and now < 18:
        return base - (1.35 if key == "systolic" else 0.95) * (now - then)
    return base


def _pregnant(chance: Random, person: Person, on: date, raw: dict[str, float]) -> dict[str, float]:
    pregnancy = person.pregnancy
    if pregnancy is None or not pregnancy.begun <= on <= (pregnancy.ended or on):
        return {}
    weeks = (on - pregnancy.begun).days / 7
    return {
        "gestation": weeks,
        "fundal_height": max(weeks + chance.gauss(-0.3, 0.8), 8),
        "fetal_heart_rate": chance.gauss(142, 6),
        "weight": raw["weight"] + 0.32 * max(weeks - 8, 0),
        "heart_rate": raw["heart_rate"] + 0.3 * weeks,
        "systolic": raw["systolic"] - (6 if 14 <= weeks <= 30 else 2),
        "hemoglobin": raw["hemoglobin"] - 1.0 * min(weeks / 28, 1),
    }
