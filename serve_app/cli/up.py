"""`medrec up`: refuse what can be refused, start the cell, watch it, end it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from configs.cell import AiApplication, CellConfig
from configs.reader import load
from deployments.cell import ports as cell_ports
from deployments.cell import state
from deployments.cell.running import Cell, Interrupted, Tell
from deployments.cell.state import CellError
from deployments.data.accounts.demo import FILE as CREDENTIALS
from deployments.edge import haproxy

console = Console(highlight=False, soft_wrap=True)


def run(config: Path, offset: int, timeout_s: float, *, behind_edge: bool = False) -> None:
    """The whole life of a cell. Raises `ConfigError`, `CellError` or `HaproxyError`.

    `behind_edge`: as a host's service, without an HAProxy of its own; what an earlier run left behind
    when it was killed is ended first, as nobody is there to call `medrec down`.
    """
    site = load(config)
    haproxy.binary()
    ports = _ports(site, offset)
    home = state.home()
    home.prepare()
    with state.lock(home), signals() as stop:
        if behind_edge and (before := state.read(home)) is not None:
            state.end_all(before)
        state.refuse_if_running(home)
        in_use = cell_ports.taken(ports)
        if wrong := [entry for entry in in_use if not (behind_edge and entry.name == "public")]:
            raise CellError("\n".join(str(entry) for entry in wrong))
        with console.status("checking") as spinner:
            cell = Cell(home, ports, config, site, _teller(spinner), stop.is_set, behind_edge)
            try:
                cell.start(timeout_s=timeout_s)
                spinner.stop()
                _announce(cell, site)
                cell.supervise(stop.wait)
            except Interrupted:
                pass
            finally:
                spinner.start()
                _end(cell)
    console.print("stopped")


def _end(cell: Cell) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    cell.tell("stopping")
    if left := cell.stop():
        raise CellError(f"processes outlived SIGKILL: {', '.join(map(str, left))}")


def _ports(site: CellConfig, offset: int) -> cell_ports.Ports:
    text = os.environ.get("PORT")
    try:
        public = int(text) if text else None
        if public is not None and not 0 < public < 65536:
            raise ValueError("out of range")
        return cell_ports.chosen(offset, public=public, serve=site.http_options.port)
    except ValueError as error:
        what = "--port-offset" if not text else "PORT or --port-offset"
        raise CellError(f"{what}: {error}") from error


@contextmanager
def signals() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, SIGTERM or hang-up sets."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: event.set()) for number in numbers}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _teller(spinner: Status) -> Tell:
    last = ""

    def tell(words: str) -> None:
        nonlocal last
        spinner.update(escape(words))
        if words != last and not console.is_terminal:
            console.print(escape(words))
        last = words

    return tell


def _announce(cell: Cell, site: CellConfig) -> None:
    """Where the cell is, and two ways to ask it something."""
    models = [
        entry.model
        for app in site.applications
        if isinstance(app, AiApplication)
        for entry in app.args.language
    ]
    url = f"http://127.0.0.1:{cell.ports.public}"
    console.print(f"[bold green]ready[/] at [bold]{url}[/]   models: {', '.join(models)}")
    console.print(f"Ray dashboard http://127.0.0.1:{cell.ports.dashboard}   files {cell.home.path}")
    if models:
        console.print(_try_it(url, models[0], cell.home.path / CREDENTIALS))
    console.print("Ctrl-C or medrec down stops it.")


def _try_it(url: str, model: str, credentials: Path) -> str:
    """Lines to paste. The key stays in its file, so that no terminal's log keeps it."""
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":"Hello"}}]}}'
    if credentials.exists():
        read = f'python3 -c \'import json;print(json.load(open("{credentials}"))["api_key"])\''
        key = f"  export KEY=$({read})   # users and passwords are in the same file\n"
    else:
        key = "  export KEY=…   # medrec key create --name … --scopes …\n"
    lines = (
        f"\n{key}"
        f'  curl -s {url}/v1/chat/completions -H "authorization: Bearer $KEY" \\\n'
        f"    -H 'content-type: application/json' -d '{body}'\n"
        f"  curl -s {url}/fhir/metadata\n"
        f"  {Path(sys.executable).with_name('medrec')} demo load   # invented patients; then, for one:\n"
        f'  curl -s "{url}/fhir/Patient?_count=1" -H "authorization: Bearer $KEY"\n\n'
        "  import os\n"
        "  from openai import OpenAI\n"
        f'  client = OpenAI(base_url="{url}/v1", api_key=os.environ["KEY"])\n'
        f'  print(client.chat.completions.create(model="{model}",\n'
        '      messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content)\n'
    )
    return escape(lines)
