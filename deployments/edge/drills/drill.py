"""The drills that a hospital runs by the calendar: what each does, its limits, its verdict."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from deployments.cell.state import CellError
from deployments.edge.drills import experiment
from deployments.edge.drills.experiment import Experiment, Limits
from deployments.edge.drills.faults import FAULTS, ORDERED, Fault
from deployments.edge.drills.load import Pace, Target
from deployments.edge.drills.picture import page
from deployments.edge.drills.scene import Scene

Name = Literal["health", "failover", "cloud", "full", "audit"]
NAMES: tuple[Name, ...] = ("health", "failover", "cloud", "full", "audit")
# The plan's: a failover within 30 s, the emergency service within 5 minutes.
LIMITS = {
    "failover": Limits(plain_s=30.0, database_s=30.0),
    "cloud": Limits(emergency_s=300.0, database_s=None),
}
# Seconds that the fault lasts before it is mended: longer than anybody waits for the other side.
HOLD_S = {"failover": 45.0, "cloud": 45.0}
EVERY_DAYS: Mapping[Name, int] = {"health": 1, "failover": 7, "cloud": 31, "full": 92, "audit": 366}
_SLACK = 1.5

Tell = Callable[[str], None]
# Checks that a drill makes beside the faults: a name, and the sentences of what is wrong.
Check = Callable[[], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Report:
    """What a drill found. `problems` are sentences; none: every limit was kept."""

    drill: Name
    started: float
    ended: float
    experiments: tuple[Experiment, ...]
    problems: tuple[str, ...]
    is_local: bool

    @property
    def is_passed(self) -> bool:
        """Whether every limit was kept."""
        return not self.problems

    def values(self) -> dict[str, Any]:
        """As JSON values; the figures of the worst experiment stand at the top."""
        worst = max(self.experiments, key=lambda e: e.first_success_s or float("inf"), default=None)
        top = {} if worst is None else worst.values()
        keys = (
            *("fault", "first_success_s", "failed", "hung", "lost_acknowledged_writes"),
            *("two_primaries_s", "restored_s"),
        )
        return {
            "drill": self.drill,
            "started": self.started,
            "ended": self.ended,
            "local": self.is_local,
            "passed": self.is_passed,
            "problems": list(self.problems),
            **{key: top.get(key) for key in keys},
            "experiments": [entry.values() for entry in self.experiments],
        }


def run(
    name: Name, scene: Scene, target: Target | None, checks: Mapping[str, Check], *, tell: Tell
) -> Report:
    """Run one drill. Raises `CellError` where the site is degraded: then nothing is begun."""
    started = time.time()
    if name != "health" and (ailments := scene.ailments()):
        raise CellError("the site is degraded, and no drill begins: " + "; ".join(ailments))
    problems = [f"{what}: {words}" for what, check in checks.items() for words in check()]
    found: list[Experiment] = []
    if name == "health":
        problems += scene.ailments()
    for part in _parts(name):
        if target is None:
            raise CellError("this drill needs an API key: MEDREC_DRILL_KEY")
        if part == "cloud" and scene.plan.cloud is None:
            continue
        fault = _fault(part, scene)
        pace = replace(Pace(), mode_s=0.25) if part == "cloud" else Pace()
        found.append(
            experiment.run(
                scene, fault, target, tell=tell, hold_s=HOLD_S[part], pace=pace, limits=LIMITS[part]
            )
        )
        problems += [f"{fault.name}: {words}" for words in found[-1].problems]
    return Report(name, started, time.time(), tuple(found), tuple(problems), scene.is_local)


def _parts(name: Name) -> tuple[str, ...]:
    return {"failover": ("failover",), "cloud": ("cloud",), "full": ("failover", "cloud")}.get(
        name, ()
    )


def _fault(part: str, scene: Scene) -> Fault:
    """On one machine the power goes; between real machines an order moves what it would move."""
    if scene.is_local:
        return FAULTS["machine-lost" if part == "failover" else "both-lost"]
    return ORDERED["handover" if part == "failover" else "emergency-ordered"]


def save(report: Report, folder: Path) -> Path:
    """Write the report as JSON and as a page, and return the path of the first."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    moment = datetime.fromtimestamp(report.started, UTC)
    stem = f"{moment:%Y%m%dT%H%M%SZ}-{report.drill}"
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(report.values(), indent=1), encoding="utf-8")
    title = f"Drill {report.drill}, {moment:%Y-%m-%d %H:%M} UTC"
    (folder / f"{stem}.html").write_text(
        page(title, report.experiments, report.problems), encoding="utf-8"
    )
    return path


def past(folder: Path, now: float, *, but: Name = "audit") -> list[str]:
    """What a year's reports lack: drills that were not run in time, or not passed since.

    `but`: the one that is being run, which cannot be on record yet.
    """
    reports = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))
    ]
    found = []
    for name, days in EVERY_DAYS.items():
        if name in ("audit", but):
            continue
        mine = [r for r in reports if r["drill"] == name]
        if not mine:
            found.append(f"no {name} drill is on record")
            continue
        last = max(mine, key=lambda r: float(r["started"]))
        age_days = (now - last["started"]) / 86_400
        if age_days > days * _SLACK:
            found.append(
                f"the last {name} drill was {age_days:.0f} days ago; one is due every {days}"
            )
        if not last["passed"]:
            found.append(f"the last {name} drill failed: {'; '.join(last['problems'])}")
    return found
