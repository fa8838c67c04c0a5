"""What `medrec subject` does: the work itself is in deployments/data/interactions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import orjson
import typer

from deployments.data.interactions.subject import Line, Subject
from deployments.data.interactions.subject_erasure import Erasure
from deployments.data.interactions.subject_export import SubjectExport
from serve_app.cli.whose import site_of, told_plainly


def export_subject(config: Path | None, patient: str, out: Path, *, as_json: bool) -> None:
    """Export and print what was written."""
    args, found = site_of(config)
    with told_plainly():
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
    args, found = site_of(config)
    with told_plainly():
        patients = asyncio.run(Erasure(found).due(args.organization))
    for patient in patients:
        typer.echo(patient)


def erase_subject(config: Path | None, patient: str, *, records_too: bool, as_json: bool) -> None:
    """Erase and print the report."""
    args, found = site_of(config)
    with told_plainly():
        subject = Subject(patient, args.organization)
        lines = asyncio.run(Erasure(found).run(subject, records_too=records_too))
    if as_json:
        report = {"patient": patient, "categories": [line.as_json() for line in lines]}
        typer.echo(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(lines)


def _print(lines: Sequence[Line]) -> None:
    for line in lines:
        if line.held == 0:
            continue
        until = f" until {line.until:%Y-%m-%d}" if line.until else ""
        kept = f"{line.kept} kept{until} ({line.law})" if line.kept else line.law
        typer.echo(f"{line.category}: {line.erased} erased, {kept}")
    if not any(line.held for line in lines):
        typer.echo("nothing is held about this patient")
