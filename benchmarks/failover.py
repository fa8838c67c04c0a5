"""Benchmark `failover`: every fault of a local site under a steady load, and what clients noticed.

The site is started here (as root, a network namespace a host), each run begins on a whole site, and
each result is kept in a journal, so that a long series goes on where it was broken off.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from benchmarks.failover_site import SiteProcess
from benchmarks.machine import commit
from benchmarks.quantiles import quantile
from benchmarks.report import Chart, Column, Draft, Report, verdict
from deployments.cell.state import CellError
from deployments.edge.drills import experiment
from deployments.edge.drills.experiment import Limits
from deployments.edge.drills.faults import FAULTS, Fault, Need
from deployments.edge.drills.load import Pace
from deployments.edge.drills.outcome import KINDS

OFTEN = ("machine-lost", "postgres-killed")
OFTEN_RUNS, OTHER_RUNS = 20, 3
# What mends itself is watched until it has; what is held lasts as long as a request may wait.
HOLD_S = {
    "edge-reloaded": 5.0,
    **dict.fromkeys(("api-killed", "engine-killed", "etcd-killed", "edge-killed"), 12.0),
    **dict.fromkeys(("postgres-killed", "cell-killed", "standby-then-primary"), 20.0),
}
DEFAULT_HOLD_S = 31.0
DISK_MB = 768
# First success of plain reads: a machine that is lost, one that hangs.
PLAIN_LIMITS = {"machine-lost": 1.0, "machine-frozen": 10.0, "edge-killed": 3.0}
DATABASE_P50_S, DATABASE_WORST_S, EMERGENCY_S = 20.0, 30.0, 15.0

COLUMNS = [
    Column(key="fault", title="fault", meaning="what was done to the site"),
    Column(key="kind", title="kind", meaning="kind of request; `all` sums up the runs of a fault"),
    Column(key="runs", title="runs", meaning="how often the fault was made"),
    Column(key="requests", title="requests", meaning="requests that ended after the fault"),
    Column(key="first_p50_s", title="first p50", meaning="s from the fault to the first success"),
    Column(key="first_p95_s", title="first p95", meaning="the same, 95th percentile over the runs"),
    Column(key="first_max_s", title="first max", meaning="the same, the longest"),
    Column(key="longest_s", title="longest", meaning="s that the slowest request took in any run"),
    Column(
        key="failed", title="failed", meaning="requests that failed, documented repeats included"
    ),
    Column(key="hung", title="hung", meaning="requests without an end within 35 s"),
    Column(key="repeated", title="repeated", meaning="requests that their client had to repeat"),
    Column(key="lost", title="lost", meaning="acknowledged writes that were not there afterwards"),
    Column(key="two_primaries_s", title="2 primaries", meaning="s with two writable primaries"),
    Column(
        key="restored_s", title="whole", meaning="s from the mending to full redundancy, median"
    ),
]


@dataclass(frozen=True, slots=True)
class FailoverOptions:
    """Which faults, how often each; `runs` overrides both counts. `journal` is gone on with."""

    faults: tuple[str, ...] = tuple(FAULTS)
    runs: int | None = None
    journal: Path | None = None
    hold_s: float | None = None

    def __post_init__(self) -> None:
        if strangers := [name for name in self.faults if name not in FAULTS]:
            raise ValueError(f"no such fault: {strangers[0]}; there are {', '.join(FAULTS)}")

    def wanted(self, name: str) -> int:
        """How often a fault is to be made."""
        return self.runs or (OFTEN_RUNS if name in OFTEN else OTHER_RUNS)

    def values(self) -> dict[str, JsonValue]:
        """As the report keeps them."""
        return {"faults": list(self.faults), "runs": self.runs, "hold_s": self.hold_s}


@dataclass
class Journal:
    """What has been run so far, one experiment a line."""

    path: Path
    lines: list[dict[str, Any]] = field(default_factory=list)
    # As it is before the journal, which the checkout may keep, grows.
    commit: str = field(default_factory=commit)

    @classmethod
    def opened(cls, path: Path) -> Journal:
        """The journal at `path`, with what it holds."""
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return cls(path, [json.loads(line) for line in text.splitlines() if line.strip()])

    def count(self, fault: str) -> int:
        """Runs of a fault that are done."""
        return sum(line["fault"] == fault for line in self.lines)

    def add(self, values: dict[str, Any]) -> None:
        """Keep one more run."""
        values = {**values, "commit": self.commit}
        self.lines.append(values)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")


def run(options: FailoverOptions, folder: Path, *, tell: Any) -> Report:
    """Make every fault as often as is wanted. Raises `CellError` where no site comes up."""
    journal = Journal.opened(options.journal or folder / "failover.jsonl")
    draft = Draft("failover", options.values(), COLUMNS)
    needs: list[Need] = list(dict.fromkeys(FAULTS[name].need for name in options.faults))
    for need in sorted(needs, key=lambda need: need not in ("", "namespaces")):
        due = _due(options, journal, need)
        if due:
            with SiteProcess(need, folder, DISK_MB) as site:
                for fault in due:
                    _once(site, fault, options, journal, tell)
    _sum_up(draft, journal, options)
    return draft.close()


def _due(options: FailoverOptions, journal: Journal, need: Need) -> list[Fault]:
    """Runs that are left, the faults in turn: a series that is broken off has some of each."""
    alike = ("", "namespaces")
    chosen = [
        FAULTS[n]
        for n in options.faults
        if FAULTS[n].need == need or (need in alike and FAULTS[n].need in alike)
    ]
    left = {f.name: options.wanted(f.name) - journal.count(f.name) for f in chosen}
    found = []
    while any(count > 0 for count in left.values()):
        for fault in chosen:
            if left[fault.name] > 0:
                left[fault.name] -= 1
                found.append(fault)
    return found


def _once(
    site: SiteProcess, fault: Fault, options: FailoverOptions, journal: Journal, tell: Any
) -> None:
    hold_s = options.hold_s or HOLD_S.get(fault.name, DEFAULT_HOLD_S)
    site.scene.wait_whole(experiment.WHOLE_TIMEOUT_S)
    try:
        # A site that was started again may have PostgreSQL's primary where it was led last.
        site.scene.come_home(experiment.WHOLE_TIMEOUT_S)
        found = experiment.run(
            site.scene,
            fault,
            site.target,
            tell=tell,
            hold_s=hold_s,
            pace=pace_of(fault),
            limits=limits_of(fault),
        )
    except CellError as error:
        tell(f"{fault.name}: {error}")
        site.restart()
        return
    values = found.values()
    values.pop("timeline")
    journal.add(values)
    for problem in found.problems:
        tell(f"{fault.name}: {problem}")
    if found.restored_s is None or site.scene.ailments():
        site.restart()


def pace_of(fault: Fault) -> Pace:
    """The load of a run: where emergency is expected, it is asked for."""
    return Pace(mode_s=0.25) if fault.survivors == "emergency" else Pace()


def limits_of(fault: Fault) -> Limits:
    """What a run of the fault must keep."""
    return Limits(
        plain_s=PLAIN_LIMITS.get(fault.name),
        database_s=DATABASE_WORST_S,
        emergency_s=EMERGENCY_S,
    )


def _sum_up(draft: Draft, journal: Journal, options: FailoverOptions) -> None:
    for name in options.faults:
        runs = [line for line in journal.lines if line["fault"] == name]
        if not runs:
            continue
        restored = [r["restored_s"] for r in runs if r["restored_s"] is not None]
        draft.row(
            fault=name,
            kind="all",
            runs=len(runs),
            failed=sum(r["failed"] for r in runs),
            hung=sum(r["hung"] for r in runs),
            lost=sum(r["lost_acknowledged_writes"] for r in runs),
            two_primaries_s=max(r["two_primaries_s"] for r in runs),
            restored_s=quantile(sorted(restored), 0.5) if len(restored) == len(runs) else None,
        )
        for kind in KINDS:
            _kind_row(draft, name, kind, runs)
        _judge(draft, name, runs)


def _kind_row(draft: Draft, name: str, kind: str, runs: Sequence[dict[str, Any]]) -> None:
    found = [k for run in runs for k in run["kinds"] if k["kind"] == kind and k["requests"]]
    if not found:
        return
    firsts = [k["first_success_s"] for k in found]
    draft.row(
        fault=name,
        kind=kind,
        runs=len(found),
        requests=sum(k["requests"] for k in found),
        **_firsts(firsts),
        longest_s=max(k["longest_s"] for k in found),
        failed=sum(k["failed"] for k in found),
        hung=sum(k["hung"] for k in found),
        repeated=sum(k["repeated"] for k in found),
    )
    known = sorted(f for f in firsts if f is not None)
    if known and kind in ("plain", "record", "write", "mode"):
        points = [(100.0 * (i + 1) / len(firsts), value) for i, value in enumerate(known)]
        _chart(draft, kind).series[name] = points


def _firsts(firsts: Sequence[float | None]) -> dict[str, float | None]:
    known = [f for f in firsts if f is not None]
    if not known or len(known) < len(firsts):
        return {"first_p50_s": quantile(sorted(known), 0.5) if known else None, "first_max_s": None}
    return {
        "first_p50_s": quantile(sorted(known), 0.5),
        "first_p95_s": quantile(sorted(known), 0.95),
        "first_max_s": max(known),
    }


def _chart(draft: Draft, kind: str) -> Chart:
    title = f"{kind}: first success after the fault"
    found = next((chart for chart in draft.charts if chart.title == title), None)
    if found is None:
        found = Chart(title=title, x="% of runs", y="seconds", kind="step", series={})
        draft.charts.append(found)
    return found


def _judge(draft: Draft, name: str, runs: Sequence[dict[str, Any]]) -> None:
    """The issue's own limits."""

    def worst(kinds: Iterable[str], share: float) -> float:
        values = [
            k["first_success_s"] if k["first_success_s"] is not None else float("nan")
            for run in runs
            for k in run["kinds"]
            if k["kind"] in kinds and k["requests"]
        ]
        return quantile(sorted(values), share) if values else float("nan")

    def judge(goal: str, figure: float, limit: float) -> None:
        draft.verdicts.append(verdict(f"{name}: {goal}", figure, "at most", limit))

    judge("lost acknowledged writes", sum(r["lost_acknowledged_writes"] for r in runs), 0)
    judge("seconds with two primaries", max(r["two_primaries_s"] for r in runs), 0)
    if FAULTS[name].survivors == "emergency":
        judge("emergency answers, s, worst", worst(["mode"], 1.0), EMERGENCY_S)
        return
    unanswered = sum(r["hung"] + (0 if FAULTS[name].interrupts else r["failed"]) for r in runs)
    judge("requests failed or hung", unanswered, 0)
    judge(
        "needs the database, first success p50, s", worst(["record", "write"], 0.5), DATABASE_P50_S
    )
    judge(
        "needs the database, first success worst, s",
        worst(["record", "write"], 1.0),
        DATABASE_WORST_S,
    )
    if name in PLAIN_LIMITS:
        judge("needs no database, first success p95, s", worst(["plain"], 0.95), PLAIN_LIMITS[name])
