"""`medrec emergency`: who may use the emergency service, and what is to be done with one that was."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="The emergency service: enrolment, extension, review, return.", no_args_is_help=True
)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; the running cell's, or local.yaml unless given."),
]
Name = Annotated[str, typer.Argument(help="The name that somebody signs in with.")]
Which = Annotated[
    str | None, typer.Option("--activation", help="Id of an emergency; the last unless given.")
]


@app.command()
def enrol(name: Name, config: Config = None) -> None:
    """Give a user one of the places of the emergency service (on site)."""
    from serve_app.cli import emergency_work

    typer.echo(f"{name} is enrolled, at place {emergency_work.enrol(config, name)}")


@app.command()
def unenrol(name: Name, config: Config = None) -> None:
    """Take a user's place away (on site)."""
    from serve_app.cli import emergency_work

    emergency_work.unenrol(config, name)
    typer.echo(f"{name} is not enrolled any more")


@app.command("list")
def list_enrolled(config: Config = None) -> None:
    """Show who is enrolled."""
    from serve_app.cli import emergency_work

    for each in emergency_work.enrolled(config):
        state = "disabled" if each.disabled else "-"
        line = (str(each.place), each.username, each.role, state, each.enrolled_on)
        typer.echo("\t".join((*line, each.enrolled_by)))


@app.command()
def extend(config: Config = None) -> None:
    """Let the emergency last longer, also one that has just expired (on the emergency cell)."""
    from serve_app.cli import emergency_work

    found = emergency_work.extend(config)
    typer.echo(f"it lasts until {found.expires_at.isoformat(timespec='minutes')}")


@app.command()
def review(
    activation: Which = None,
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List what was done in an emergency: sessions, reads, notes, chats, by their ids."""
    from serve_app.cli import emergency_work

    emergency_work.review(config, activation, as_json=as_json)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="File to make, sealed.")],
    activation: Which = None,
    config: Config = None,
) -> None:
    """Write what an emergency left, for `medrec emergency merge` on site (on the emergency cell)."""
    from serve_app.cli import emergency_work

    package, others = emergency_work.export(config, activation, out)
    typer.echo(
        f"{len(package.notes)} notes, {len(package.alerts)} alerts and {len(package.entries)} audit "
        f"entries of emergency {package.activation.id} in {out}"
    )
    for other in others if activation is None else ():
        typer.echo(
            f"emergency {other.id} of {other.activated_at:%Y-%m-%d %H:%M} left {len(other.notes)} notes "
            f"too: export it as well by --activation {other.id}, unless it has been merged"
        )


@app.command()
def merge(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="An export.")],
    config: Config = None,
) -> None:
    """Merge an export into the records (on site). Exit status 1: something needs to be looked at."""
    from serve_app.cli import emergency_work

    raise typer.Exit(emergency_work.merge_file(config, file))
