"""One fault under load from beginning to end: whole, loaded, struck, watched, mended, counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

from deployments.cell.state import CellError
from deployments.edge.drills import load
from deployments.edge.drills.faults import Fault
from deployments.edge.drills.load import Load, Pace, Target
from deployments.edge.drills.outcome import KINDS, Kind, Moments, Noticed, Outcome, noticed
from deployments.edge.drills.primaries import Primaries
from deployments.edge.drills.scene import Cast, Scene

WARM_UP_S = 7.0
# A machine that is slow today may take longer for the first answer of each kind.
_ANSWERED_S, _LOOK_S = 30.0, 0.1
WHOLE_TIMEOUT_S = 600.0
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run must keep, in seconds; None: no limit."""

    plain_s: float | None = None
    database_s: float | None = 30.0
    emergency_s: float | None = None
    restored_s: float | None = WHOLE_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Experiment:
    """What one run has shown. Moments are seconds from the fault."""

    fault: str
    title: str
    started: float
    first_success_s: float | None
    failed: int
    hung: int
    lost_acknowledged_writes: int
    doubled_writes: int
    acknowledged_writes: int
    two_primaries_s: float
    restored_s: float | None
    kinds: tuple[Noticed, ...]
    decisions: tuple[str, ...]
    ended_s: float
    timeline: tuple[tuple[str, float, float, str], ...] = field(repr=False, default=())
    problems: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def run(
    scene: Scene,
    fault: Fault,
    target: Target,
    *,
    tell: Tell,
    hold_s: float,
    pace: Pace = Pace(),
    limits: Limits = Limits(),
    heal_s: float = WHOLE_TIMEOUT_S,
    whole: bool = True,
) -> Experiment:
    """Run one fault, and mend it whatever happens; `heal_s` is waited for full redundancy.

    Raises `CellError` where the site is not whole beforehand, unless `whole` is not asked for.
    """
    if whole and (ailments := scene.ailments()):
        raise CellError("the site is degraded, and no drill begins: " + "; ".join(ailments))
    cast = scene.cast()
    tell(f"{fault.name}: {fault.title} ({cast.serving} serves, {cast.primary} is primary)")
    watch = Primaries(scene.place)
    watch.start()
    try:
        return asyncio.run(
            _under_load(scene, cast, fault, target, watch, tell, hold_s, pace, limits, heal_s)
        )
    finally:
        watch.stop()


async def _under_load(
    scene: Scene,
    cast: Cast,
    fault: Fault,
    target: Target,
    watch: Primaries,
    tell: Tell,
    hold_s: float,
    pace: Pace,
    limits: Limits,
    heal_s: float,
) -> Experiment:
    started = time.time()
    patient = await load.new_patient(target)
    running = Load(target, pace, patient)
    before = len(_decisions(scene))
    running.start()
    restored_s: float | None = None
    mended = False
    try:
        await asyncio.sleep(WARM_UP_S)
        await _each_answered(running)
        since = time.monotonic()
        if fault.before is not None:
            await asyncio.to_thread(fault.before, scene, cast)
        moment = time.monotonic()
        silent = await asyncio.to_thread(fault.begin, scene, cast)
        moments = Moments(since, moment, silent or time.monotonic())
        tell(f"{fault.name}: struck")
        await asyncio.sleep(max(0.0, moment + hold_s - time.monotonic()))
        back = time.monotonic()
        await asyncio.to_thread(fault.end, scene, cast)
        mended = True
        ended_s = time.monotonic() - back
        took_s = await asyncio.to_thread(scene.wait_whole, heal_s)
        restored_s = None if took_s is None else ended_s + took_s
    except asyncio.CancelledError:
        # Told to end: what waits would hold the process for minutes. The site is mended all the same.
        scene.interrupt()
        raise
    finally:
        if not mended:
            await asyncio.to_thread(fault.end, scene, cast)
        await running.stop()
    ending = "whole again" if restored_s is not None else "NOT whole again"
    tell(f"{fault.name}: {ending}")
    astray = None
    if restored_s is not None:
        try:
            await asyncio.to_thread(scene.come_home, WHOLE_TIMEOUT_S)
        except CellError as error:
            astray = str(error)
    there = await _held(target, patient)
    decisions = tuple(_decisions(scene)[before:])
    found = _summed(
        fault, cast, started, moments, running, watch, restored_s, there, decisions, limits
    )
    return found if astray is None else replace(found, problems=(*found.problems, astray))


def _summed(
    fault: Fault,
    cast: Cast,
    started: float,
    moments: Moments,
    running: Load,
    watch: Primaries,
    restored_s: float | None,
    there: dict[str, int] | None,
    decisions: tuple[str, ...],
    limits: Limits,
) -> Experiment:
    outcomes, moment = running.outcomes, moments.fault
    kinds = tuple(noticed(kind, outcomes, moments) for kind in KINDS)
    lost = [key for key in running.acknowledged if there is not None and key not in there]
    early = [o for o in outcomes if o.ended < moments.since]
    problems = [
        f"{kind}: nothing succeeded before the fault" for kind in _unanswered(running, early)
    ]
    problems += _problems(fault, kinds, limits)
    if there is None:
        problems.append("the writes could not be read back")
    if lost:
        problems.append(f"{len(lost)} acknowledged writes are lost")
    if watch.both_s:
        problems.append(f"two writable primaries for {watch.both_s:.1f} s")
    if restored_s is None:
        problems.append(f"not whole again within {WHOLE_TIMEOUT_S:.0f} s")
    expected = [n for n in kinds if n.requests and _is_expected(n.kind, fault)]
    firsts = [n.first_success_s for n in expected if n.kind != "socket"]
    return Experiment(
        fault=fault.name,
        title=fault.title,
        started=started,
        first_success_s=None
        if None in firsts
        else max((f for f in firsts if f is not None), default=None),
        failed=sum(n.failed for n in expected),
        hung=sum(n.hung for n in expected),
        lost_acknowledged_writes=len(lost),
        doubled_writes=sum(count > 1 for count in (there or {}).values()),
        acknowledged_writes=len(running.acknowledged),
        two_primaries_s=round(watch.both_s, 3),
        restored_s=restored_s,
        kinds=kinds,
        decisions=decisions,
        ended_s=time.monotonic() - moment,
        timeline=_timeline(outcomes, moment),
        problems=tuple(problems),
    )


def _problems(fault: Fault, kinds: tuple[Noticed, ...], limits: Limits) -> list[str]:
    found = []
    bounds: dict[Kind, float | None] = {
        "plain": limits.plain_s,
        "record": limits.database_s,
        "write": limits.database_s,
        "chat": limits.database_s,
        "mode": limits.emergency_s,
    }
    for n in kinds:
        limit = bounds.get(n.kind)
        if not n.requests or not _is_expected(n.kind, fault):
            continue
        # Until the emergency cell takes over, nobody is there to answer.
        may_fail = fault.interrupts or fault.survivors == "emergency"
        if (n.failed and not may_fail) or n.hung:
            which = "".join(f"; {words}" for words in n.failures)
            found.append(f"{n.kind}: {n.failed} failed, {n.hung} hung{which}")
        if limit is not None and (n.first_success_s is None or n.first_success_s > limit):
            told = "never" if n.first_success_s is None else f"after {n.first_success_s:.1f} s"
            found.append(f"{n.kind}: first success {told}, over the limit of {limit:g} s")
    return found


async def _each_answered(running: Load) -> None:
    """Wait for the first success of each kind, so long at most: one that is missing is then told."""
    for _ in range(round(_ANSWERED_S / _LOOK_S)):
        if not _unanswered(running, running.outcomes):
            return
        await asyncio.sleep(_LOOK_S)


def _unanswered(running: Load, outcomes: Iterable[Outcome]) -> list[Kind]:
    """Kinds of the load that nothing has succeeded of."""
    answered = {o.kind for o in outcomes if o.result == "ok"}
    return [kind for kind in running.kinds if kind not in answered]


def _is_expected(kind: Kind, fault: Fault) -> bool:
    """Whether requests of the kind are to succeed: the emergency cell refuses most of them by name."""
    return fault.survivors == "cell" or kind == "mode"


def _timeline(outcomes: list[Outcome], moment: float) -> tuple[tuple[str, float, float, str], ...]:
    return tuple(
        (o.kind, round(o.began - moment, 3), round(o.ended - moment, 3), o.result)
        for o in outcomes
        if o.ended > moment - WARM_UP_S
    )


async def _held(target: Target, patient: str) -> dict[str, int] | None:
    for _ in range(5):
        try:
            return await load.held(target, patient)
        except httpx.HTTPError:
            await asyncio.sleep(2)
    return None


def _decisions(scene: Scene) -> list[str]:
    """What the stewards have decided so far, as they wrote it down."""
    found = []
    for edge in scene.plan.edges:
        file = edge.folder / "decisions.jsonl"
        if file.exists():
            for line in file.read_text(encoding="utf-8").splitlines():
                values = json.loads(line)
                found.append((values["at"], f"{edge.name}: {values['action']}: {values['reason']}"))
    return [words for _, words in sorted(found)]
