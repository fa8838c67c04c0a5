"""`medrec drill`: runs a drill for real, measures it, restores the site, writes the report."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from deployments.cell import state
from deployments.cell.state import CellError
from deployments.data.accounts.demo import FILE as CREDENTIALS
from deployments.edge.drills import drill as drills
from deployments.edge.drills.drill import NAMES, Check, Report
from deployments.edge.drills.load import Target
from deployments.edge.drills.scene import Scene
from deployments.site import here
from deployments.site.calling import Caller, CallFailed
from deployments.site.ground import CLIENT, enter
from deployments.site.trust.renewal import certificate_ends

console = Console(highlight=False, soft_wrap=True)
KEY_VARIABLE = "MEDREC_DRILL_KEY"
FOLDER = "drills"
_SOON_S = 21 * 86_400


def run(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    as_json: Annotated[bool, typer.Option("--json", help="The report on standard output.")] = False,
) -> None:
    """Run a drill on the site of this home. Exit status 1: a limit was passed."""
    if name not in NAMES:
        raise typer.BadParameter(f"one of {', '.join(NAMES)}")
    home = state.home()
    place = here.find(home)
    folder = home.path / FOLDER
    scene = Scene(place)
    try:
        if place.namespaces is not None:
            enter(place.namespaces.name(CLIENT))
        checks: dict[str, Check] = {"certificates": lambda: _certificates(place)}
        if name in ("audit", "full"):
            checks["drills"] = lambda: drills.past(folder, time.time(), but=name)
        report = drills.run(name, scene, target_of(place), checks, tell=_tell)
        path = drills.save(report, folder)
        _put_on_record(scene, report)
    finally:
        scene.close()
    if as_json:
        print(path.read_text(encoding="utf-8"))
    else:
        _print(report, path)
    raise typer.Exit(0 if report.is_passed else 1)


def target_of(place: here.Place) -> Target | None:
    """Where the load of a drill goes, with the key of the environment or of the demo."""
    key = os.environ.get(KEY_VARIABLE) or _demo_key(place)
    if key is None:
        return None
    tls = ssl.create_default_context(cafile=str(place.host.tls / "ca.crt"))
    return Target(place.plan.public_url, place.plan.public_address, key, tls)


def _demo_key(place: here.Place) -> str | None:
    try:
        file = place.plan.cells[0].home.path / CREDENTIALS
        found: str = json.loads(file.read_text(encoding="utf-8"))["api_key"]
    except (OSError, ValueError, KeyError):
        return None
    return found


def _certificates(place: here.Place) -> Sequence[str]:
    now = time.time()
    return [
        f"{name} ends in {max(0.0, (end - now) / 86_400):.0f} days"
        for name, end in certificate_ends(place.host.tls).items()
        if end - now < _SOON_S
    ]


def _put_on_record(scene: Scene, report: Report) -> None:
    """The drill's entry in the audit, by a cell that answers. Raises `CellError`."""
    values = report.values()
    details: dict[str, Any] = {
        "drill": report.drill,
        "passed": report.is_passed,
        **{k: values[k] for k in ("fault", "first_success_s", "lost_acknowledged_writes")},
        "problems": "; ".join(report.problems)[:400],
    }
    outcome = "success" if report.is_passed else "failed"
    body = {"action": "drill", "outcome": outcome, "details": details}

    async def send(caller: Caller) -> None:
        for cell in scene.plan.cells:
            try:
                await caller.ask(
                    cell, cell.ports.api_tls, "/internal/acts", timeout_s=5.0, body=body,
                    permitted=(204,),
                )  # fmt: skip
                return
            except CallFailed:
                continue
        raise CellError("no cell put the drill on record")

    scene.inside.run(send)


def _print(report: Report, path: Path) -> None:
    for entry in report.experiments:
        for kind in entry.kinds:
            if kind.requests:
                first = kind.first_success_s
                console.print(
                    f"{entry.fault} {kind.kind}: first success "
                    f"{'never' if first is None else f'{first:.2f} s'}, {kind.failed} failed, "
                    f"{kind.hung} hung of {kind.requests}, {kind.repeated} repeated"
                )
        console.print(
            f"{entry.fault}: {entry.acknowledged_writes} acknowledged writes, "
            f"{entry.lost_acknowledged_writes} lost; two primaries {entry.two_primaries_s:.1f} s"
        )
    for problem in report.problems:
        console.print(f"[bold red]{escape(problem)}[/]")
    verdict = "[bold green]passed[/]" if report.is_passed else "[bold red]failed[/]"
    console.print(f"drill {report.drill} {verdict}: {path} and {path.with_suffix('.html').name}")


def _tell(words: str) -> None:
    console.print(escape(words))
