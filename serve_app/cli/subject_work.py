"""What `medrec subject` does: the work itself is in deployments/data/interactions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson
import typer

from configs.args import RecordsArgs
from configs.reader import PROJECT_ROOT, load
from deployments.cell import state
from deployments.cell.state import CellError
from deployments.cell.store import records_args
from deployments.data.errors import DataError
from deployments.data.interactions.subject import Line, Subject
from deployments.data.interactions.subject_erasure import Erasure
from deployments.data.interactions.subject_export import SubjectExport
from deployments.data.places import Places, places

_LOCAL = PROJECT_ROOT / "configs" / "local.yaml"


def export_subject(config: Path | None, patient: str, out: Path, *, as_json: bool) -> None:
    """Export and print what was written."""
    args, found = _site(config)
    with _plainly():
        subject = Subject(patient, args.organization)
        manifest = asyncio.run(SubjectExport(found, args).run(subject, out))
    if as_json:
        typer.echo(orjson.dumps(manifest, option=orjson.OPT_INDENT_2).decode())
        return
    for name, lines in manifest["counts"].items():
        typer.echo(f"{lines:8}  {name}")
    typer.echo(f"written to {out}")


def show_due(config: Path | None) -> None:
    """Print the ids of patients whose record may go."""
    args, found = _site(config)
    with _plainly():
        patients = asyncio.run(Erasure(found).due(args.organization))
    for patient in patients:
        typer.echo(patient)


def erase_subject(config: Path | None, patient: str, *, records_too: bool, as_json: bool) -> None:
    """Erase and print the report."""
    args, found = _site(config)
    with _plainly():
        subject = Subject(patient, args.organization)
        lines = asyncio.run(Erasure(found).run(subject, records_too=records_too))
    if as_json:
        report = {"patient": patient, "categories": [line.as_json() for line in lines]}
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(lines)


def _site(config: Path | None) -> tuple[RecordsArgs, Places]:
    home = state.home()
    running = state.read(home)
    if config is None:
        config = Path(running.config) if running is not None and running.is_alive else _LOCAL
    args = records_args(load(config))
    if args is None:
        raise CellError(f"{config} keeps no records")
    return args, places(args, home)


@contextmanager
def _plainly() -> Iterator[None]:
    """A refusal as what the operator is told."""
    try:
        yield
    except DataError as error:
        raise CellError(error.message) from None


def _print(lines: Sequence[Line]) -> None:
    for line in lines:
        if line.held == 0:
            continue
        until = f" until {line.until:%Y-%m-%d}" if line.until else ""
        kept = f"{line.kept} kept{until} ({line.law})" if line.kept else line.law
        typer.echo(f"{line.category}: {line.erased} erased, {kept}")
    if not any(line.held for line in lines):
        typer.echo("nothing is held about this patient")
