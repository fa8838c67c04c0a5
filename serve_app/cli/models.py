"""`medrec models`: the model store of a cell, its versions, and which one is served."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The versions of the models, and which one is served.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The model's name in the store.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; the running cell's, or local.yaml unless given."),
]
Timeout = Annotated[
    float, typer.Option("--timeout-s", min=1, help="Longest wait for the version to run.")
]


@app.command()
def stage(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="Folder with the model's files.")],
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="What the files must be; the folder's own unless given."),
    ] = None,
    link: Annotated[
        bool, typer.Option("--link", help="Share the files: the folder must never change again.")
    ] = False,
    repository: Annotated[
        str | None, typer.Option("--repository", help="Where it comes from, owner/name.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="The repository's commit.")
    ] = None,
    config: Config = None,
) -> None:
    """Take a folder in as a version, hashed and verified. Nothing serves it yet."""
    from serve_app.cli.models_work import stage as work

    work(config, name, folder, manifest, link=link, repository=repository, revision=revision)


@app.command()
def pull(
    name: Name,
    peer: Annotated[
        str | None, typer.Option("--peer", help="The other cell's URL; the config's unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """Bring the other cell's current version here, verified. Nothing serves it yet."""
    from serve_app.cli.models_work import pull as work

    work(config, name, peer)


@app.command()
def switch(
    name: Name,
    version: Annotated[
        str | None, typer.Argument(help="Its name's beginning; the newest unless given.")
    ] = None,
    timeout_s: Timeout = 1800.0,
    config: Config = None,
) -> None:
    """Verify a version, roll the running cell to it, and make it current. The old one is kept."""
    from serve_app.cli.models_work import switch as work

    work(config, name, version, timeout_s)


@app.command()
def rollback(name: Name, timeout_s: Timeout = 1800.0, config: Config = None) -> None:
    """Go back to the version before, by the same steps."""
    from serve_app.cli.models_work import rollback as work

    work(config, name, timeout_s)


@app.command()
def verify(
    name: Annotated[
        str | None, typer.Argument(help="The model's name; every model unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """Read every byte of every version here. Exit status 1: something is damaged."""
    from serve_app.cli.models_work import verify as work

    work(config, name)


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    config: Config = None,
) -> None:
    """Show the models and their versions."""
    from serve_app.cli.models_work import show

    show(config, as_json=as_json)


@app.command()
def prune(
    name: Annotated[
        str | None, typer.Argument(help="The model's name; every model unless given.")
    ] = None,
    config: Config = None,
) -> None:
    """Remove every version but the current one, the one before, and what the cell runs."""
    from serve_app.cli.models_work import prune as work

    work(config, name)
