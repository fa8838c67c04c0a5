"""`medrec key`: API keys of machines, and the keys that sign people's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from configs.reader import PROJECT_ROOT

app = typer.Typer(
    help="API keys of machines, and the keys that sign people's tokens.", no_args_is_help=True
)

# Long enough to give the key to every cell before one of them signs by it.
SITE_DELAY_S = 60.0
LOCAL = PROJECT_ROOT / "configs" / "local.yaml"
Config = Annotated[Path, typer.Option("--config", help="Cell config that says where records lie.")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scopes: Annotated[
        str, typer.Option(help='What it permits: "ai", "system/Observation.rs ai", …')
    ],
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days that it lasts; for ever unless given.")
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="Id of the Organization; the config's unless given.")
    ] = None,
    config: Config = LOCAL,
) -> None:
    """Make an API key and print it, this once. OpenAI's clients pass it as `api_key`."""
    from deployments.cell.state import CellError
    from deployments.data.errors import Invalid
    from deployments.data.scopes import parse
    from serve_app.cli.accounts import run

    try:
        granted = parse(scopes)
    except Invalid as error:
        raise CellError(error.message) from None
    if not granted:
        raise CellError("a key without scopes permits nothing")
    text = run(
        config,
        lambda desk, args: desk.create_key(
            name, granted, organization or args.organization, expires_days=expires_days
        ),
    )
    typer.echo(text)


@app.command("list")
def list_keys(config: Config = LOCAL) -> None:
    """Show every API key, without its secret."""
    from serve_app.cli.accounts import run

    for key in run(config, lambda desk, _: desk.keys()):
        last = f"last used {key.last_used}"
        marks = f"{key.state}{',demo' if key.demo else ''}"
        fields = (key.id, key.name, key.organization, marks, last, key.created_by, key.scopes)
        typer.echo("\t".join(fields))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id, as `medrec key list` shows it.")],
    config: Config = LOCAL,
) -> None:
    """End an API key, everywhere and at once."""
    from serve_app.cli.accounts import run

    run(config, lambda desk, _: desk.revoke_key(key))
    typer.echo(f"{key} is worth nothing any more")


@app.command("init-signing")
def init_signing(config: Config = LOCAL) -> None:
    """Make the key that signs access tokens, before the first start."""
    from deployments.cell.state import CellError
    from deployments.data.accounts import signing
    from serve_app.cli.whose import site_of

    _, found = site_of(config)
    if signing.exists(found.secrets):
        raise CellError(f"{found.secrets / signing.FILE} exists: medrec key rotate-signing")
    signing.create(found.secrets, demo=False)
    typer.echo(f"made {found.secrets / signing.FILE}: keep it from everybody else")


@app.command("rotate-signing")
def rotate_signing(
    own: Annotated[
        bool, typer.Option("--own", help="Drop every earlier key: a demo made them.")
    ] = False,
    without: Annotated[
        list[str] | None, typer.Option(help="A cell of the site that is left out.")
    ] = None,
    config: Config = LOCAL,
) -> None:
    """Sign with a new key from now on; the one before verifies for another day.

    In a site every other cell is given the key, and it signs a minute later.
    """
    from deployments.cell import state
    from deployments.cell.state import CellError
    from deployments.data.accounts import signing
    from deployments.data.audit.operator import record
    from deployments.data.errors import DataError
    from deployments.site.trust.delivery import delivery_of
    from serve_app.cli.whose import site_of

    args, found = site_of(config)
    way = delivery_of(state.home(), found.secrets, without or ())
    delay_s = 0.0 if way is None else SITE_DELAY_S
    kid = signing.rotate(found.secrets, own=own, delay_s=delay_s)
    try:
        record(
            found,
            "key-change",
            organization=args.organization,
            resource=f"SigningKey/{kid}",
            change="rotated",
            own=own,
        )
    except DataError as error:
        raise CellError(f"rotated, but not on record: {error.message}") from None
    if way is not None:
        try:
            way.send()
        finally:
            way.inside.close()
    typer.echo(f"{kid} signs from now on" if way is None else f"{kid} signs in a minute, site-wide")
