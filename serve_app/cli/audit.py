"""`medrec audit`: is the chain whole, sign its head, export it. Needs the database, not the API."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The audit chain: verify, anchor, export.", no_args_is_help=True)

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; the running cell's, or local.yaml unless given."),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def verify(
    first: Annotated[int, typer.Option("--from", min=1, help="Sequence to begin at.")] = 1,
    anchor: Annotated[
        list[Path] | None,
        typer.Option("--anchor", exists=True, dir_okay=False, help="File of anchors; repeatable."),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            "--public-key",
            exists=True,
            dir_okay=False,
            help="Key that signed the anchors, as kept elsewhere; this site's own unless given.",
        ),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Check every entry and say where the chain was changed. Exit status 1: it was."""
    from serve_app.cli.audit_work import verify_chain

    raise typer.Exit(verify_chain(config, first, anchor or [], public_key, as_json=as_json))


@app.command()
def anchor(
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="File to add the anchor to.")
    ] = None,
    public_key: Annotated[
        bool, typer.Option("--public-key", help="Print the public key and sign nothing.")
    ] = False,
    config: Config = None,
) -> None:
    """Sign the chain's head, as one line of JSON, for another machine to keep."""
    from serve_app.cli.audit_work import print_public_key, sign_head

    if public_key:
        print_public_key(config)
    else:
        sign_head(config, out)


@app.command()
def export(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="File to make, NDJSON.")],
    since: Annotated[
        datetime | None, typer.Option("--from", help="First moment, UTC unless it says so.")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Moment to end before.")] = None,
    patient: Annotated[str | None, typer.Option(help="Id of one patient.")] = None,
    organization: Annotated[
        str | None, typer.Option(help="Id of the organisation; the config's unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """Write the organisation's entries as FHIR AuditEvents, one a line, the oldest first."""
    from serve_app.cli.audit_work import export_events

    export_events(config, out, since, until, patient, organization)
