"""The command line: one command for each benchmark, the same three outputs from all of them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from benchmarks import autoscale, capacity, chat, duel, engine, failover, quality, records
from benchmarks.credentials import demo_key
from benchmarks.engine_jobs import Scenario
from benchmarks.load import MAX_CLIENTS
from benchmarks.machine import PROJECT_ROOT, usable_cores
from benchmarks.prompts import MIXES, Mix
from benchmarks.records_requests import OPERATIONS, NothingToAsk, Operation
from benchmarks.records_servers import Store
from benchmarks.report import RESULTS, Report, save
from benchmarks.screen import show
from benchmarks.servers import PeerFlags, ServerFailed
from benchmarks.targets import TargetRefused, loopback
from deployments.cell import state
from deployments.cell.serve_api import ServeApi
from deployments.cell.state import CellError
from deployments.edge.drills.faults import FAULTS
from serve_app.cli.demo_load import demo_credentials

DEMO_MODEL = PROJECT_ROOT / "models" / "weights" / "gemma3-demo"
LOCAL_CONFIG = PROJECT_ROOT / "configs" / "local.yaml"

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False
)

BaseUrl = Annotated[str, typer.Option(help="A server of this machine; others are refused.")]
ApiKey = Annotated[
    str | None, typer.Option(help="The server's key; this home's demo key when unset.")
]
ServedModel = Annotated[str | None, typer.Option(help="The first that is served when unset.")]
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
    base_url: BaseUrl = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    model: ServedModel = None,
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
    seed: Annotated[
        int | None, typer.Option(help="Of prompts and arrivals; drawn when unset.")
    ] = None,
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
        seed=_drawn(seed),
    )
    try:
        options.loads()
        if peer is None:
            report = chat.run(base_url, model, options, api_key=_key(api_key), quiet=quiet)
        elif peer == "mlx_lm":
            flags = PeerFlags(*_whole_numbers("--peer-flags", peer_flags)) if peer_flags else None
            report = duel.run(config, weights, options, pairs=pairs, flags=flags, quiet=quiet)
        else:
            raise typer.BadParameter(f"{peer} is no peer that is known: mlx_lm")
    except (TargetRefused, ServerFailed, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


@app.command("engine")
def engine_command(
    model: Annotated[Path, typer.Option(help="A model folder.")] = DEMO_MODEL,
    scenario: Annotated[
        str, typer.Option(help=f"By commas: {', '.join(get_args(Scenario))}.")
    ] = "equal,mixed,shared-prefix,gap,second-turn",
    pairs: Annotated[int, typer.Option(min=1, max=25, help="Turns of each side.")] = 7,
    threads: Annotated[
        int, typer.Option(min=0, help="BLAS threads of every side; 0: one a core.")
    ] = 0,
    sequences: Annotated[int, typer.Option(min=1, max=256, help="Sequences at once.")] = 32,
    context: Annotated[
        str | None, typer.Option(help="Adds the long-context run: 32k, 128k or a number of tokens.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 1,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """The engine without HTTP, against BatchGenerator used directly and one at a time."""
    names = tuple(name for name in scenario.split(",") if name)
    if strangers := [name for name in names if name not in get_args(Scenario)]:
        raise typer.BadParameter(
            f"--scenario: {strangers[0]} is none of {', '.join(get_args(Scenario))}"
        )
    if context and "context" not in names:
        names = (*names, "context")
    options = engine.EngineOptions(
        scenarios=cast(tuple[Scenario, ...], names),
        pairs=pairs,
        threads=threads or usable_cores(),
        sequences=sequences,
        context_tokens=_tokens(context or "128k"),
        seed=seed,
    )
    finish(engine.run(model, options, quiet=quiet), out, as_json)


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


@app.command("quality")
def quality_command(
    base_url: BaseUrl = "http://127.0.0.1:8000",
    api_key: ApiKey = None,
    model: ServedModel = None,
    baseline: Annotated[
        int, typer.Option(min=0, help="Training questions of the look-up; 0: none.")
    ] = 20_000,
    concurrency: Annotated[int, typer.Option(min=1, max=64, help="Questions at once.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """The demo model's held-out questions over HTTP, graded by program, beside a look-up."""
    options = quality.QualityOptions(baseline=baseline, concurrency=concurrency, limit=limit)
    try:
        report = quality.run(base_url, model, options, api_key=_key(api_key), quiet=quiet)
    except TargetRefused as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


@app.command("autoscale")
def autoscale_command(
    model: ServedModel = None,
    clients: Annotated[int, typer.Option(min=1, max=MAX_CLIENTS, help="Clients at once.")] = 32,
    seconds: Annotated[float, typer.Option(min=10, max=3600, help="Length of the load.")] = 90.0,
    fall_s: Annotated[float, typer.Option(min=1, help="Longest wait for the fall.")] = 240.0,
    mix: Annotated[str, typer.Option(help=f"Prompts: {', '.join(MIXES)}.")] = "short",
    seed: Annotated[int | None, typer.Option(help="Of prompts; drawn when unset.")] = None,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Replicas over time under steady load on the running cell, and after it."""
    home = state.home()
    cell = state.read(home)
    if cell is None:
        raise typer.BadParameter("no cell runs: start one with medrec up")
    target = loopback(cell.base_url, demo_key(home.path))
    name = model or chat.first_model(target)
    api = ServeApi(cell.dashboard_url, home.token_file.read_text(encoding="ascii"))
    options = autoscale.AutoscaleOptions(
        clients, seconds, fall_s, _mixes(mix)[0], seed=_drawn(seed)
    )
    try:
        count = autoscale.replica_counter(api.details, name)
        report = autoscale.run(target, name, count, options, quiet=quiet)
    finally:
        api.close()
    finish(report, out, as_json)


@app.command("records")
def records_command(
    url: Annotated[
        str | None, typer.Option(help="A running platform instead; its audit stays on: no ratio.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="With --url: its key; the running cell's demo key if unset.")
    ] = None,
    clients: Annotated[
        str, typer.Option(help=f"Clients at once, 1 to {MAX_CLIENTS}.")
    ] = "1,8,32,100,200",
    operation: Annotated[str, typer.Option(help=f"By commas: {', '.join(OPERATIONS)}.")] = ",".join(
        OPERATIONS
    ),
    pairs: Annotated[int, typer.Option(min=1, max=25, help="Turns of each side.")] = 5,
    seconds: Annotated[float, typer.Option(min=0.5, max=60, help="Length of a turn.")] = 2.0,
    warm_up_s: Annotated[float, typer.Option(min=0.1, help="Unmeasured load before.")] = 1.0,
    timeout_s: Annotated[float, typer.Option(min=0.1, help="Bound of each request.")] = 30.0,
    patients: Annotated[int, typer.Option(min=1, max=2000, help="Invented patients held.")] = 60,
    seed: Annotated[int, typer.Option(help="Of patients and requests.")] = 1,
    out: Out = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Reads, searches and writes of the FHIR API, and what the audit costs them."""
    names = tuple(name for name in operation.split(",") if name)
    if strangers := [name for name in names if name not in OPERATIONS]:
        raise typer.BadParameter(f"--operation: {strangers[0]} is none of {', '.join(OPERATIONS)}")
    options = records.RecordsOptions(
        clients=_whole_numbers("--clients", clients),
        operations=cast(tuple[Operation, ...], names),
        pairs=pairs,
        seconds=seconds,
        warm_up_s=warm_up_s,
        timeout_s=timeout_s,
        patients=patients,
        seed=seed,
    )
    try:
        options.loads()
        if url is None:
            report = records.compare(Store(), options, quiet=quiet)
        else:
            key = api_key or demo_credentials(state.home().path / "credentials.json")["api_key"]
            report = records.run(url, key, options, quiet=quiet)
    except (TargetRefused, ServerFailed, NothingToAsk, CellError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


@app.command("failover")
def failover_command(
    faults: Annotated[
        str, typer.Option(help=f"By commas, all unless given: {', '.join(FAULTS)}.")
    ] = ",".join(FAULTS),
    runs: Annotated[
        int | None, typer.Option(min=1, help="Of each fault; 20 of the two main ones, 3 of others.")
    ] = None,
    journal: Annotated[
        Path | None, typer.Option(help="A series to go on with; a new one below --out when unset.")
    ] = None,
    hold_s: Annotated[
        float | None, typer.Option(min=1, help="Seconds that each fault lasts before it is mended.")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Every fault of a local site under load, as root on Linux: what clients notice, what is lost."""
    try:
        options = failover.FailoverOptions(
            tuple(name for name in faults.split(",") if name), runs, journal, hold_s
        )
        folder = out or RESULTS
        report = failover.run(options, folder, tell=lambda words: typer.echo(words, err=True))
    except (CellError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    finish(report, out, as_json)


def _key(given: str | None) -> str:
    return demo_key(state.home().path) if given is None else given


def _drawn(seed: int | None) -> int:
    """Another each time unless given: prompts that were asked before are in the prefix cache."""
    return random.randrange(10**6) if seed is None else seed


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


def _tokens(text: str) -> int:
    scale = 1024 if text.lower().endswith("k") else 1
    try:
        return int(text.lower().removesuffix("k")) * scale
    except ValueError as error:
        raise typer.BadParameter(f"--context: {text} is no number of tokens") from error


def _mixes(text: str) -> tuple[Mix, ...]:
    names = tuple(text.split(","))
    if strangers := [name for name in names if name not in MIXES]:
        raise typer.BadParameter(f"--mix: {strangers[0]} is none of {', '.join(MIXES)}")
    return cast(tuple[Mix, ...], names)
