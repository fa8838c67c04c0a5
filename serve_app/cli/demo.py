"""`medrec demo`: synthetic patients for a cell that was started with demo users."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Synthetic patients for trying out. None of them exists.", no_args_is_help=True
)


@app.callback()
def group() -> None:
    """Synthetic patients for trying out. None of them exists."""


@app.command()
def load(
    patients: Annotated[
        int,
        typer.Option(min=1, max=20_000, help="How many; those of a smaller number stay the same."),
    ] = 300,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other people.")] = 1,
    concurrency: Annotated[int, typer.Option(min=1, max=32, help="Patients at once.")] = 4,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar.")] = False,
) -> None:
    """Load invented patients with years of vitals, labs and diagnoses, in Portuguese.

    They go through the running cell's own FHIR API with the demo key, so that access, audit and
    sealing are the real ones. Repeated, it adds only what is missing.
    """
    from serve_app.cli.demo_load import run

    run(patients, seed, concurrency, quiet=quiet)
