"""The command line: one command for each benchmark, the same three outputs from all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from benchmarks import capacity, chat, duel
from benchmarks.load import MAX_CLIENTS
from benchmarks.machine import PROJECT_ROOT
from benchmarks.prompts import MIXES, Mix
from benchmarks.report import Report, save
from benchmarks.screen import show
from benchmarks.servers import PeerFlags, ServerFailed
from benchmarks.targets import TargetRefused

DEMO_MODEL = PROJECT_ROOT / "models" / "weights" / "gemma3-demo"
LOCAL_CONFIG = PROJECT_ROOT / "configs" / "local.yaml"

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False
)

Out = Annotated[
    Path | None, typer.Option(help="Folder for the JSON and PNG; benchmarks/results when unset.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]
Json = Annotated[bool, typer.Option("--json", help="The report as JSON instead of a table.")]


def finish(report: Report, out: Path | None, as_json: bool) -> None:
    """Shows the report and says on standard error where it was written."""
    written, picture = save(report, out)
    if as_json:
        typer.echo(json.dumps(json.loads(report.model_dump_json()), indent=2))
    else:
        show(report)
    typer.echo(f"{written}" + (f", {picture.name}" if picture else ""), err=True)


@app.command("chat")
def chat_command(
    base_url: Annotated[
        str, typer.Option(help="A server of this machine; others are refused.")
    ] = "http://127.0.0.1:8000",
    model: Annotated[str | None, typer.Option(help="The first that is served when unset.")] = None,
    clients: Annotated[
        str, typer.Option(help=f"Closed loop: clients at once, 1 to {MAX_CLIENTS}: 1,32,200.")
    ] = "1,8,32",
    rate: Annotated[str, typer.Option(help="Open loop: arrivals a second: 2,5.5.")] = "",
    mix: Annotated[str, typer.Option(help=f"Prompts and lengths: {', '.join(MIXES)}.")] = "short",
    requests: Annotated[int, typer.Option(min=1, help="Requests of each client.")] = 4,
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="Bound of each run.")] = 60.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Answer length instead of the mix's own.")
    ] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Bound of each request.")] = 120.0,
    warm_up_s: Annotated[float, typer.Option(min=0, help="Unmeasured load before each run.")] = 10,
    seed: Annotated[int, typer.Option(help="Of prompts and arrivals.")] = 1,
    peer: Annotated[
        str | None, typer.Option(help="mlx_lm: alternate with mlx_lm.server in the same run.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, max=25, help="With --peer: turns each.")] = 5,
    config: Annotated[
        Path, typer.Option(help="With --peer: the platform's config.")
    ] = LOCAL_CONFIG,
    weights: Annotated[
        Path, typer.Option(help="With --peer: the model folder for both.")
    ] = DEMO_MODEL,
    peer_flags: Annotated[
        str | None,
        typer.Option(help="With --peer: threads,decode,prompt instead of a search: 2,32,8."),
    ] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Streaming chats on an OpenAI-compatible server: first text, gaps, tokens a second, errors."""
    options = chat.ChatOptions(
        clients=_whole_numbers("--clients", clients),
        rates_per_s=_numbers("--rate", rate),
        mixes=_mixes(mix),
        requests=requests,
        seconds=seconds,
        max_tokens=max_tokens,
        timeout_s=timeout_s,
        warm_up_s=warm_up_s,
        seed=seed,
    )
    try:
        options.loads()
        if peer is None:
            report = chat.run(base_url, model, options, quiet=quiet)
        elif peer == "mlx_lm":
            flags = PeerFlags(*_whole_numbers("--peer-flags", peer_flags)) if peer_flags else None
            report = duel.run(config, weights, options, pairs=pairs, flags=flags, quiet=quiet)
        else:
            raise typer.BadParameter(f"{peer} is no peer that is known: mlx_lm")
    except (TargetRefused, ServerFailed, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


@app.command("capacity")
def capacity_command(
    model: Annotated[
        str, typer.Option(help="Built-in shapes or folders with a config.json, by commas.")
    ] = "medgemma-4b,medgemma-27b",
    bits: Annotated[str, typer.Option(help="Bits a weight: 4, 8, 16.")] = "4,8,16",
    context: Annotated[int, typer.Option(min=1, help="Tokens of context a user.")] = 8192,
    users: Annotated[int, typer.Option(min=1, max=10_000, help="Users at once.")] = 200,
    budget_gb: Annotated[float, typer.Option(min=1, help="Memory of the AI node.")] = 300.0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """What an M3 Ultra can hold and serve, by roofline; runs nothing."""
    options = capacity.CapacityOptions(
        models=tuple(model.split(",")),
        bits=_whole_numbers("--bits", bits),
        context=context,
        users=users,
        budget_gb=budget_gb,
    )
    try:
        report = capacity.run(options)
    except (ValueError, FileNotFoundError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text} is not a list of numbers") from error


def _whole_numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text} is not a list of whole numbers") from error


def _mixes(text: str) -> tuple[Mix, ...]:
    names = tuple(text.split(","))
    if strangers := [name for name in names if name not in MIXES]:
        raise typer.BadParameter(f"--mix: {strangers[0]} is none of {', '.join(MIXES)}")
    return cast(tuple[Mix, ...], names)
