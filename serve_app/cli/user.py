"""`medrec user`: the people who may sign in."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from configs.reader import PROJECT_ROOT

app = typer.Typer(help="The people who may sign in.", no_args_is_help=True)

LOCAL = PROJECT_ROOT / "configs" / "local.yaml"
Config = Annotated[Path, typer.Option("--config", help="Cell config that says where records lie.")]
Name = Annotated[str, typer.Argument(help="The name that somebody signs in with.")]
Stdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input.")
]
Generate = Annotated[bool, typer.Option("--generate", help="Make a password and print it once.")]


@app.command()
def add(
    name: Name,
    role: Annotated[str, typer.Option(help="physician, nurse, analyst, auditor or admin.")],
    practitioner: Annotated[
        str | None, typer.Option(help="Id of the Practitioner that the person is.")
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="Id of the Organization; the config's unless given.")
    ] = None,
    openid_sub: Annotated[
        str | None,
        typer.Option(help="The person's `sub` at the hospital's own OpenID Connect provider."),
    ] = None,
    password_stdin: Stdin = False,
    generate: Generate = False,
    config: Config = LOCAL,
) -> None:
    """Make an account."""
    from deployments.cell.state import CellError
    from deployments.data.accounts.administration import NewUser
    from deployments.data.principal import ROLES
    from serve_app.cli.accounts import run

    known = {one: one for one in ROLES if one != "service"}
    if role not in known:
        raise CellError(f"a role is one of {', '.join(known)}")
    asks = openid_sub is None or password_stdin or generate
    password = _password(password_stdin, generate) if asks else None
    run(
        config,
        lambda desk, args: desk.add_user(
            NewUser(
                username=name,
                role=known[role],
                organization=organization or args.organization,
                password=password,
                practitioner=practitioner,
                openid_sub=openid_sub,
            )
        ),
    )
    typer.echo(f"{name} can sign in as {role}")
    if generate:
        typer.echo(f"password: {password}")


@app.command("set-password")
def set_password(
    name: Name, password_stdin: Stdin = False, generate: Generate = False, config: Config = LOCAL
) -> None:
    """Set a password; the person's sessions end."""
    from serve_app.cli.accounts import run

    password = _password(password_stdin, generate)
    run(config, lambda desk, _: desk.set_password(name, password))
    typer.echo(f"{name} has a new password")
    if generate:
        typer.echo(f"password: {password}")


@app.command()
def disable(name: Name, config: Config = LOCAL) -> None:
    """Close an account; the person's sessions end."""
    from serve_app.cli.accounts import run

    run(config, lambda desk, _: desk.disable(name))
    typer.echo(f"{name} cannot sign in any more")


@app.command()
def enable(name: Name, config: Config = LOCAL) -> None:
    """Open a closed account again."""
    from serve_app.cli.accounts import run

    run(config, lambda desk, _: desk.disable(name, disabled=False))
    typer.echo(f"{name} can sign in again")


@app.command("list")
def list_users(config: Config = LOCAL) -> None:
    """Show every account."""
    from serve_app.cli.accounts import run

    for user in run(config, lambda desk, _: desk.users()):
        marks = [
            word
            for word, given in (
                ("disabled", user.disabled),
                ("demo", user.demo),
                ("openid", user.openid),
            )
            if given
        ]
        practitioner = f"Practitioner/{user.practitioner}" if user.practitioner else "-"
        typer.echo(
            "\t".join(
                (user.username, user.role, user.organization, practitioner, ",".join(marks) or "-")
            )
        )


def _password(from_stdin: bool, generate: bool) -> str:
    if generate:
        from deployments.data.accounts.passwords import generated

        return generated()
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
