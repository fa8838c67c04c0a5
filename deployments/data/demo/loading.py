"""Loads a population into a running cell, over its own API: access, audit and sealing are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from deployments.data.demo import names
from deployments.data.demo.charts import chart
from deployments.data.demo.resources import practitioner
from deployments.data.demo.server import LoadFailed, Server, resolved
from deployments.data.demo.shapes import Chart, Population, Staff

MAX_PATIENTS = 20_000
PHYSICIANS = 6


@dataclass(slots=True)
class Summary:
    """What a run of the loader did. `present` patients were whole before it."""

    patients: int = 0
    present: int = 0
    resources: int = 0
    in_care: int = 0
    refusals: int = 0
    duration_s: float = 0.0
    by_type: dict[str, int] = field(default_factory=dict)

    def count(self, type: str) -> None:
        """One more resource."""
        self.resources += 1
        self.by_type[type] = self.by_type.get(type, 0) + 1


async def load(
    server: Server,
    population: Population,
    patients: int,
    *,
    concurrency: int,
    advance: Callable[[], None],
) -> Summary:
    """Load persons 0 to `patients - 1`, at most `concurrency` at once.

    What is there already, by its demo identifier, is left alone, so that a run that broke off can
    be repeated. Raises `LoadFailed` at the first refusal, once nothing is on its way any more.
    """
    began = time.monotonic()
    summary = Summary()
    population = replace(population, staff=await _staff(server, population))
    numbers = iter(range(patients))

    async def work() -> None:
        for number in numbers:
            made = await asyncio.to_thread(chart, population, number)
            await _load_chart(server, made, population, summary)
            advance()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except* LoadFailed as failures:
        raise LoadFailed(str(failures.exceptions[0])) from None
    summary.duration_s = time.monotonic() - began
    return summary


async def _staff(server: Server, population: Population) -> Staff:
    """The demo users, and physicians who have seen the patients before."""
    created = []
    for number in range(PHYSICIANS):
        given = (names.FEMALE, names.MALE)[number % 2][7 * number + 3]
        mark = f"staff-{number}"
        family = names.FAMILY[11 * number + 5]
        created.append(await server.create(practitioner(mark, given, family), mark, f"demo-{mark}"))
    return replace(population.staff, physicians=tuple(created))


async def _load_chart(
    server: Server, made: Chart, population: Population, summary: Summary
) -> None:
    known: dict[str, str] = {}
    fresh = added = False
    day = population.as_of.isoformat()  # content changes with it, and a key stands for one content
    for part in made.parts:
        # Whoever has just created the patient need not ask whether the rest is there.
        there = None if fresh else await server.find(part.resource_type, part.mark)
        if there is not None:
            known.setdefault(part.entries[0]["fullUrl"], there)
            continue
        fresh = fresh or part is made.parts[0]
        known |= await server.transact(part, f"demo-{part.mark}-{day}", known)
        added = True
        for entry in part.entries:
            summary.count(entry["resource"]["resourceType"])
    added |= await _load_note(server, made, known, summary, day, fresh=fresh)
    summary.patients += added
    summary.present += not added
    _count_kinds(made, population, summary)


async def _load_note(
    server: Server, made: Chart, known: dict[str, str], summary: Summary, day: str, *, fresh: bool
) -> bool:
    note = made.note
    if note is None or (not fresh and await server.find("DocumentReference", note.mark)):
        return False
    visit = known.get(note.visit) or await server.find("Encounter", note.visit_mark)
    if visit is None:
        raise LoadFailed("an encounter that was loaded before is not there any more")
    binary = await server.upload(note.text, known[made.patient], f"demo-binary-{note.mark}-{day}")
    document = resolved(note.document, {**known, note.visit: visit})
    document["content"][0]["attachment"]["url"] = binary
    await server.create(document, note.mark, f"demo-{note.mark}-{day}")
    summary.count("Binary")
    summary.count("DocumentReference")
    return True


def _count_kinds(made: Chart, population: Population, summary: Summary) -> None:
    """How many are in the demo physician's care, and how many refuse AI, whoever loaded them."""
    resources = [entry["resource"] for part in made.parts for entry in part.entries]
    own = {"reference": population.staff.demo_physician}
    summary.in_care += any(
        own in resource.get("generalPractitioner", ())
        or (
            resource.get("status") == "in-progress"
            and {"individual": own} in resource["participant"]
        )
        for resource in resources
    )
    summary.refusals += any(
        resource["resourceType"] == "Consent" and resource["provision"]["type"] == "deny"
        for resource in resources
    )
