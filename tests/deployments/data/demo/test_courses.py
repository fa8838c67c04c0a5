"""Three hundred people's visits held to what medicine allows."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from statistics import mean

import pytest

from deployments.data.demo.courses import MAX_VISITS, Visit, course
from deployments.data.demo.diseases import BY_KEY, DISEASES
from deployments.data.demo.episodes import EPISODES, safe
from deployments.data.demo.measures import MEASURES
from deployments.data.demo.people import Person, person

AS_OF = date(2026, 11, 22)
SEED = 5


@pytest.fixture(scope="module")
def people() -> list[tuple[Person, tuple[Visit, ...]]]:
    found = [person(SEED, number, AS_OF) for number in range(300)]
    return [(who, course(SEED, who, AS_OF, current=who.number % 3 == 0)) for who in found]


Courses = list[tuple[Person, tuple[Visit, ...]]]


def test_all_ages_and_every_disease_appear(people: Courses) -> None:
    ages = sorted(who.age(AS_OF) for who, _ in people)
    assert ages[0] < 2
    assert ages[-1] > 85
    assert {key for who, _ in people for key in who.diseases()} == set(BY_KEY)
    assert any(who.pregnancy for who, _ in people)
    assert 0 < sum(who.refuses_ai for who, _ in people) < 60


def test_visits_are_in_order_after_birth_and_not_in_the_future(people: Courses) -> None:
    for who, visits in people:
        assert all(sooner.on < later.on for sooner, later in pairwise(visits))
        assert all(who.born <= visit.on < AS_OF for visit in visits)
        assert all(visit.on <= visit.until <= AS_OF for visit in visits if visit.until)
        assert all(visit.until for visit in visits if visit.kind != "current")
        assert len(visits) <= MAX_VISITS + 1
        assert (visits[-1].kind == "current") == (who.number % 3 == 0)


def test_every_value_is_possible_and_what_derives_from_others_agrees(people: Courses) -> None:
    for who, visits in people:
        for visit in visits:
            values = visit.values
            for key, value in values.items():
                assert MEASURES[key].low <= value <= MEASURES[key].high, key
            if "systolic" in values:
                assert values["systolic"] - values["diastolic"] >= 15
            if "bmi" in values:
                expected = values["weight"] / (values["height"] / 100) ** 2
                assert values["bmi"] == pytest.approx(expected, abs=0.06)
            if "ldl" in values:
                total = values["ldl"] + values["hdl"] + values["triglycerides"] / 5
                assert total == pytest.approx(values["cholesterol"], abs=1)
            if who.age(visit.on) < 18:
                assert "egfr" not in values or who.age(visit.on) >= 18


def test_an_illness_counts_from_its_onset_on(people: Courses) -> None:
    for _, visits in people:
        for visit in visits:
            assert all(illness.onset <= visit.on or visit.kind == "current"
                       for illness in visit.illnesses)  # fmt: skip


def _mean(people: Courses, measure: str, disease: str, *, having: bool) -> float:
    return mean(
        visit.values[measure]
        for who, visits in people
        for visit in visits
        if measure in visit.values
        and who.age(visit.on) >= 40
        and any(i.disease.key == disease and i.onset <= visit.on for i in who.illnesses) == having
    )


@pytest.mark.parametrize(
    ("disease", "measure", "difference"),
    [
        ("hypertension", "systolic", 5),
        ("diabetes", "glucose", 30),
        ("kidney", "egfr", -20),
        ("kidney", "creatinine", 0.3),
        ("copd", "saturation", -2),
        ("lipids", "cholesterol", 8),
        ("obesity", "bmi", 5),
        ("anaemia", "hemoglobin", -0.3),
    ],
)
def test_a_disease_shows_in_its_measure(
    people: Courses, disease: str, measure: str, difference: float
) -> None:
    having = _mean(people, measure, disease, having=True)
    others = _mean(people, measure, disease, having=False)
    assert (having - others) / difference > 1


def test_the_kidneys_of_stage_3_stay_in_stage_3(people: Courses) -> None:
    rates = [
        visit.values["egfr"]
        for who, visits in people
        for visit in visits
        if "egfr" in visit.values
        and any(i.disease.key == "kidney" and i.onset <= visit.on for i in who.illnesses)
    ]
    assert rates
    assert all(29 <= rate <= 60 for rate in rates)


def test_treatment_lowers_what_it_is_for() -> None:
    for disease in DISEASES:
        for key, effect in disease.effects.items():
            assert effect.onset * effect.treated <= 0, (disease.key, key)


def test_nobody_is_given_what_would_harm(people: Courses) -> None:
    drugs = [drug for disease in DISEASES for drug in disease.drugs]
    drugs += [drug for episode in EPISODES for drug in episode.drugs]
    replaced = 0
    for who, _ in people:
        for drug in drugs:
            given = safe(drug, who)
            replaced += given != drug
            if given is not None:
                assert not any(given.atc.startswith(a.code) for a in who.allergies)
                assert given.atc != "M01AE01" or not who.diseases() & {"kidney", "heart_failure"}
    assert replaced


def test_a_pregnancy_is_measured_week_by_week(people: Courses) -> None:
    weeks = [
        [visit.values["gestation"] for visit in visits if visit.kind == "prenatal"]
        for who, visits in people
        if who.pregnancy
    ]
    assert any(len(each) > 5 for each in weeks)
    for each in weeks:
        assert each == sorted(each)
        assert all(7 <= week <= 41 for week in each)
    assert all(
        who.sex == "female" and 15 < who.age(AS_OF) < 46 for who, _ in people if who.pregnancy
    )
