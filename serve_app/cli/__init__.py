"""`medrec`, the command line of a cell: the cell itself, its records, people and keys."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.reader import PROJECT_ROOT, ConfigError
from deployments.cell.ports import free_offset
from deployments.cell.state import CellError
from deployments.data.errors import DataError
from deployments.edge.haproxy import HaproxyError
from serve_app.cli import drill
from serve_app.cli.ai import app as ai_app
from serve_app.cli.audit import app as audit_app
from serve_app.cli.backup import app as backup_app
from serve_app.cli.ca import app as ca_app
from serve_app.cli.demo import app as demo_app
from serve_app.cli.emergency import app as emergency_app
from serve_app.cli.key import app as key_app
from serve_app.cli.models import app as models_app
from serve_app.cli.seal import app as seal_app
from serve_app.cli.site import app as site_app
from serve_app.cli.subject import app as subject_app
from serve_app.cli.user import app as user_app

app = typer.Typer(
    help="A self-hosted clinical AI platform on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ray_app = typer.Typer(help="The Ray below a cell.", no_args_is_help=True)
app.add_typer(ray_app, name="ray")
app.add_typer(audit_app, name="audit")
app.add_typer(seal_app, name="seal")
app.add_typer(backup_app, name="backup")
app.add_typer(ca_app, name="ca")
app.add_typer(site_app, name="site")
app.add_typer(demo_app, name="demo")
app.add_typer(user_app, name="user")
app.add_typer(key_app, name="key")
app.add_typer(ai_app, name="ai")
app.add_typer(models_app, name="models")
app.add_typer(subject_app, name="subject")
app.add_typer(emergency_app, name="emergency")

LOCAL = PROJECT_ROOT / "configs" / "local.yaml"
Config = Annotated[Path, typer.Option("--config", help="Cell config, a Ray Serve config file.")]
Offset = Annotated[
    str,
    typer.Option(
        "--port-offset", help="Added to every port; a multiple of 1000, or auto for a free one."
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout-s", min=1, help="Longest wait for the models to load.")
]


def main() -> None:
    """Run the command; what the operator can act on is a message and exit status 1."""
    # A database that is away is told once, by the command itself.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    try:
        app()
    except (ConfigError, CellError, HaproxyError, DataError) as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(
            f"[bold red]medrec:[/] {_plain(error)}"
        )
        sys.exit(1)


@app.command()
def up(
    config: Config = LOCAL,
    port_offset: Offset = "0",
    timeout_s: Timeout = 600.0,
    behind_edge: Annotated[
        bool, typer.Option("--behind-edge", help="Without HAProxy: the host of a site has its own.")
    ] = False,
) -> None:
    """Start the cell and stay in the foreground until Ctrl-C or medrec down."""
    from serve_app.cli.up import run

    run(config, _offset(port_offset), timeout_s, behind_edge=behind_edge)


@app.command()
def down() -> None:
    """Stop the cell, and every process of it."""
    from serve_app.cli.down import run

    run()


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show pools, budgets, use, replicas, models and addresses. Exit status 3: no cell runs."""
    from serve_app.cli.status import run

    sys.exit(run(as_json=as_json))


@app.command()
def serve(
    config: Annotated[Path, typer.Argument(help="Cell config to put in place of the running one.")],
    timeout_s: Timeout = 600.0,
) -> None:
    """Check a config and deploy it on the running cell, as a rolling update."""
    from serve_app.cli.serve import run

    run(config, timeout_s)


app.command("drill")(drill.run)


@ray_app.command("start")
def ray_start(
    config: Config = LOCAL,
    port_offset: Offset = "0",
    print_only: Annotated[
        bool, typer.Option("--print", help="Only print the lines that would start it.")
    ] = False,
) -> None:
    """Start PostgreSQL and Ray with the virtual nodes' budgets; then serve deploy takes the config."""
    from serve_app.cli.ray_start import run

    run(config, _offset(port_offset), print_only=print_only)


def _offset(text: str) -> int:
    if text == "auto":
        return free_offset()
    try:
        return int(text)
    except ValueError as error:
        raise typer.BadParameter("a number or auto", param_hint="--port-offset") from error


def _plain(error: Exception) -> str:
    return str(error).replace("[", r"\[")
