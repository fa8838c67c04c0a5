"""`medrec subject`: what a person may ask of the hospital by LGPD art. 18."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="A person's rights by LGPD art. 18: export and erasure.", no_args_is_help=True
)

Patient = Annotated[str, typer.Option("--patient", help="The id of the Patient.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; the running cell's, or local.yaml unless given."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def export(
    patient: Patient,
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Folder to make.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write everything that is held about a person into a folder, as NDJSON and files."""
    from serve_app.cli.subject_work import export_subject

    export_subject(config, patient, out, as_json=as_json)


@app.command()
def due(config: Config = None) -> None:
    """List the patients whose record's 20 years are over. Deletes nothing."""
    from serve_app.cli.subject_work import show_due

    show_due(config)


@app.command()
def erase(
    patient: Patient,
    after_retention: Annotated[
        bool,
        typer.Option("--after-retention", help="Delete the record, once its 20 years are over."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Erase what may be erased, and say by which law the rest is kept and until when."""
    from serve_app.cli.subject_work import erase_subject

    if after_retention and not yes:
        typer.confirm("This deletes the whole record for ever. Go on?", abort=True, err=True)
    erase_subject(config, patient, records_too=after_retention, as_json=as_json)
