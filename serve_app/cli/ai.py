"""`medrec ai`: the switch that turns AI off for the site or for one capability, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Switch AI off and on.", no_args_is_help=True)

Capability = Annotated[str, typer.Option("--capability", help="site, or one capability: chat.")]
Reason = Annotated[str, typer.Option("--reason", help="A code, kept on record: incident, drift.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Cell config; the running cell's, or local.yaml unless given."),
]


@app.command()
def off(
    capability: Capability = "site", reason: Reason = "operator", config: Config = None
) -> None:
    """Switch AI off: every replica refuses within a second, answers under way end."""
    from serve_app.cli.ai_work import move

    move(config, capability, enabled=False, reason=reason)


@app.command()
def on(capability: Capability = "site", reason: Reason = "operator", config: Config = None) -> None:
    """Switch AI on again."""
    from serve_app.cli.ai_work import move

    move(config, capability, enabled=True, reason=reason)


@app.command()
def status(config: Config = None) -> None:
    """Show how the switches stand."""
    from serve_app.cli.ai_work import show

    show(config)
