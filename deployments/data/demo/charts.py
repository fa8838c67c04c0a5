"""A person's whole chart as FHIR transaction Bundles, in parts that a server takes one at a time.

Entries of one part refer to each other by `urn:uuid:`; later parts to earlier ones as well, so the
loader replaces what it has been told the ids of. All urns follow from seed and number.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import date, timedelta
from random import Random

from deployments.data.demo import orders, reports, resources
from deployments.data.demo.codings import DEMO, ICD_10, LOINC, Resource, concept, moment
from deployments.data.demo.courses import Visit, course
from deployments.data.demo.diseases import Drug
from deployments.data.demo.episodes import FOLIC_ACID, safe
from deployments.data.demo.measures import MEASURES
from deployments.data.demo.people import DAYS_A_YEAR, Person, person
from deployments.data.demo.shapes import Chart, Note, Part, Population

MAX_ENTRIES = 90
_SPACE = uuid.UUID("6d6f1f1e-63b5-5a8e-9c0d-2f4a7f0b7a31")
# Shares of the patients: in the care of the demo staff now, and enrolled with the demo physician.
IN_CARE, ENROLLED = 0.3, 0.15


def chart(population: Population, number: int) -> Chart:
    """The chart of person `number`. The same for the same arguments."""
    who = person(population.seed, number, population.as_of)
    return _Writing(population, who).chart()


class _Writing:
    """A chart while it is written."""

    def __init__(self, population: Population, who: Person) -> None:
        self.population = population
        self.person = who
        self.chance = Random(f"chart {population.seed} {who.number}")
        self.key = f"{population.seed}-{who.number:05d}"
        self.subject = self.urn("Patient")
        self._given: set[str] = set()
        draw = self.chance.random()
        staff = population.staff
        self.in_care = staff.demo_physician is not None and draw < IN_CARE
        enrolled = IN_CARE <= draw < IN_CARE + ENROLLED
        self.practitioner = staff.demo_physician if enrolled else None

    def urn(self, *path: object) -> str:
        name = "/".join(map(str, (self.key, *path)))
        return f"urn:uuid:{uuid.uuid5(_SPACE, name)}"

    def chart(self) -> Chart:
        population, who = self.population, self.person
        visits = course(population.seed, who, population.as_of, current=self.in_care)
        header = [self.entry(self.subject, self.patient()), *self.background(visits)]
        blocks = [list(self.visit(number, visit)) for number, visit in enumerate(visits)]
        return Chart(self.subject, tuple(self.parts(header, blocks)), self.note(visits))

    def entry(self, urn: str, resource: Resource) -> Resource:
        request = {"method": "POST", "url": resource["resourceType"]}
        return {"fullUrl": urn, "resource": resource, "request": request}

    def patient(self) -> Resource:
        return resources.patient(self.person, self.key, self.population.systems, self.practitioner)

    def background(self, visits: tuple[Visit, ...]) -> Iterator[Resource]:
        """What belongs to no visit: allergies, lasting conditions, consent."""
        who, first = self.person, visits[0].on if visits else self.population.as_of
        for entry in who.allergies:
            found = resources.allergy(self.subject, entry, first.isoformat())
            yield self.entry(self.urn("allergy", entry.code), found)
        for illness in who.illnesses:
            disease, onset = illness.disease, illness.onset.isoformat()
            seen = max(illness.onset, first)
            found = resources.condition(
                *(self.subject, None, disease.icd10, disease.display),
                onset=onset,
                recorded=seen.isoformat(),
                lasting=True,
            )
            yield self.entry(self.urn("condition", disease.key), found)
        if pregnancy := who.pregnancy:
            found = resources.condition(
                *(self.subject, None, "Z34.9", "Supervisão de gravidez normal, não especificada"),
                onset=pregnancy.begun.isoformat(),
                recorded=(pregnancy.begun + timedelta(weeks=8)).isoformat(),
                abated=pregnancy.ended.isoformat() if pregnancy.ended else None,
            )
            yield self.entry(self.urn("condition", "pregnancy"), found)
        if who.refuses_ai or self.chance.random() < 0.25:
            at = moment(visits[-1].on if visits else self.population.as_of, 480)
            consent = orders.consent(self.subject, at, permits_ai=not who.refuses_ai)
            yield self.entry(self.urn("consent"), consent)

    def visit(self, number: int, visit: Visit) -> Iterator[Resource]:
        """The Encounter first, then everything that came of it."""
        here = self.urn("visit", number)
        minute = 8 * 60 + self.chance.randrange(0, 32) * 15
        staff = self.staff(visit)
        ended = visit.until is not None
        last_day = visit.until or visit.on
        end = moment(last_day, minute + 25 if last_day == visit.on else 11 * 60) if ended else None
        yield self.entry(
            here,
            resources.encounter(
                self.subject,
                f"{self.key}-{number:03d}",
                start=moment(visit.on, minute),
                end=end,
                inpatient=visit.kind in ("admission", "current"),
                reason=_reason(visit),
                staff=staff,
                organization=self.population.organization,
            ),
        )
        yield from self.findings(number, visit, here, minute, staff)
        yield from self.drugs(number, visit, here, minute, staff)

    def staff(self, visit: Visit) -> tuple[str, ...]:
        """The demo users at what goes on now; one of the others at what is past."""
        staff = self.population.staff
        if visit.kind == "current":
            return tuple(ref for ref in (staff.demo_physician, staff.demo_nurse) if ref)
        return (self.chance.choice(staff.physicians),) if staff.physicians else ()

    def findings(
        self, number: int, visit: Visit, here: str, minute: int, staff: tuple[str, ...]
    ) -> Iterator[Resource]:
        """Measures, the reports that gather them, and the diagnosis of what has come up."""
        values = dict(visit.values)
        at, by = moment(visit.on, minute + 5), staff[0] if staff else None
        if "systolic" in values:
            panel = resources.blood_pressure(self.subject, here, values, at, by)
            yield self.entry(self.urn("visit", number, "pressure"), panel)
            del values["systolic"], values["diastolic"]
        if number and self.person.age(visit.on) > 19:
            values.pop("height", None)  # grown up, and measured before
        measured: list[str] = []
        for key, value in values.items():
            urn = self.urn("visit", number, key)
            if MEASURES[key].category == "laboratory":
                measured.append(urn)
            found = resources.observation(self.subject, here, key, value, at, by)
            yield self.entry(urn, found)
        laboratory = {k: v for k, v in values.items() if MEASURES[k].category == "laboratory"}
        if laboratory:
            code = concept(LOINC, "11502-2", "Laudo laboratorial")
            yield self.entry(
                self.urn("visit", number, "laboratory"),
                orders.report(
                    *(self.subject, here, code, "LAB"),
                    at=at,
                    results=measured,
                    conclusion=reports.laboratory(laboratory),
                ),
            )
        if visit.exam:
            code, category = reports.exam_code(visit.exam)
            conclusion = reports.examination(visit)
            yield self.entry(
                self.urn("visit", number, "exam"),
                orders.report(
                    *(self.subject, here, code, category),
                    at=at,
                    results=[],
                    conclusion=conclusion,
                ),
            )
        if (episode := visit.episode) is not None:
            over = visit.on + timedelta(days=episode.days)
            found = resources.condition(
                *(self.subject, here, episode.icd10, episode.display),
                onset=(visit.on - timedelta(days=2)).isoformat(),
                recorded=visit.on.isoformat(),
                abated=over.isoformat() if over <= self.population.as_of else None,
            )
            yield self.entry(self.urn("visit", number, "diagnosis"), found)

    def drugs(
        self, number: int, visit: Visit, here: str, minute: int, staff: tuple[str, ...]
    ) -> Iterator[Resource]:
        """What is taken from now on, once in the chart, and what is taken for a few days."""
        by, written = staff[0] if staff else None, moment(visit.on, minute + 20)
        lasting = [
            drug
            for illness in visit.illnesses
            for drug in illness.disease.drugs[: _steps(illness.onset, visit.on)]
        ]
        lasting += [FOLIC_ACID] if visit.kind == "prenatal" else []
        for drug in lasting:
            given = safe(drug, self.person)
            if given is None or given.atc in self._given:
                continue
            self._given.add(given.atc)
            said = orders.medication(
                self.subject, given, since=visit.on.isoformat(), asserted=written
            )
            yield self.entry(self.urn("medication", given.atc), said)
            yield self.order(number, here, given, written, by, "active")
        for drug in visit.episode.drugs if visit.episode else ():
            if given := safe(drug, self.person):
                yield self.order(number, here, given, written, by, "completed")

    def order(
        self,
        number: int,
        here: str,
        drug: Drug,
        written: str,
        by: str | None,
        status: orders.Status,
    ) -> Resource:
        found = orders.prescription(self.subject, here, drug, written=written, by=by, status=status)
        return self.entry(self.urn("visit", number, "drug", drug.atc), found)

    def parts(self, header: list[Resource], blocks: list[list[Resource]]) -> Iterator[Part]:
        """As many visits in a part as fit; every part after the first begins with an Encounter."""
        mark, entries = self.key, header
        for number, block in enumerate(blocks):
            if len(entries) + len(block) > MAX_ENTRIES:
                yield Part(mark, tuple(entries))
                mark, entries = f"{self.key}-{number:03d}", []
            entries = [*entries, *block]
        yield Part(mark, tuple(entries))

    def note(self, visits: tuple[Visit, ...]) -> Note | None:
        """A text about the last stay or follow-up, of about half of the patients."""
        told = [n for n, v in enumerate(visits) if v.kind in ("admission", "follow-up")]
        if not told or self.chance.random() < 0.4:
            return None
        stays = [n for n in told if visits[n].kind == "admission"]
        number = (stays or told)[-1]
        visit = visits[number]
        text = reports.note(self.person, visit).encode()
        found = orders.document(
            *(self.subject, self.urn("visit", number)),
            binary="",
            at=moment(visit.until or visit.on, 18 * 60),
            discharge=visit.kind == "admission",
            size=len(text),
        )
        mark = f"{self.key}-note"
        found["identifier"] = [{"system": DEMO, "value": mark}]
        visit_mark = f"{self.key}-{number:03d}"
        return Note(mark, text, found, self.urn("visit", number), visit_mark)


def _reason(visit: Visit) -> Resource | None:
    if visit.episode is not None:
        return concept(ICD_10, visit.episode.icd10, visit.episode.display)
    if visit.kind == "admission" and (severe := visit.illnesses[0].disease.severe):
        return concept(ICD_10, *severe)
    if visit.kind == "prenatal":
        display = "Supervisão de gravidez normal, não especificada"
        return concept(ICD_10, "Z34.9", display)
    if visit.illnesses:
        disease = visit.illnesses[0].disease
        return concept(ICD_10, disease.icd10, disease.display)
    return concept(ICD_10, "Z00.0", "Exame médico geral")


def _steps(onset: date, on: date) -> int:
    """How many of a disease's drugs are given by now: one more after one year, and after three."""
    years = (on - onset).days / DAYS_A_YEAR
    return 1 + (years >= 1) + (years >= 3)
