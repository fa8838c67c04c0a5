"""`medrec ray start`: PostgreSQL, and a Ray with the virtual nodes' budgets, for `serve deploy`."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from rich.console import Console

from configs.args import RecordsArgs
from configs.reader import load
from deployments.cell import head, state, store
from deployments.cell import ports as cell_ports
from deployments.cell.processes import Recorded
from deployments.cell.running import RAY_ATTEMPTS, RAY_START_TIMEOUT_S
from deployments.cell.state import CellError, Charged, Home, State


def run(config: Path, offset: int, *, print_only: bool) -> None:
    """Print the lines that start Ray, and unless told otherwise, run them. Raises `CellError`.

    The records that `config` names are made ready as well, the home's own PostgreSQL started for them;
    `medrec up` alone starts it again when it dies.
    """
    home = state.home()
    home.prepare()
    try:
        ports = cell_ports.Ports().shifted(offset)
    except ValueError as error:
        raise CellError(f"--port-offset: {error}") from error
    folder = head.ray_dir(home)
    variables = head.environment(home, ports)
    line = head.command(ports, folder)
    print(head.shell_lines(variables, line))
    if print_only:
        return
    records = store.records_args(load(config))
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    with state.lock(home):
        state.refuse_if_running(home)
        own = [entry for entry in cell_ports.taken(ports) if entry.name not in ("public", "serve")]
        if own:
            raise CellError("\n".join(str(entry) for entry in own))
        head.prepare_ray_dir(folder)
        cell = state.new("", ports, folder, owned=False)
        try:
            if records is not None:
                cell = _start_store(cell, records, home, notes)
            _start_ray(cell, home, variables, line)
        except BaseException:
            store.stop(home)
            state.forget(home)
            raise
    notes.print("\n[bold green]Ray runs.[/] In each shell that deploys or asks:")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_DASHBOARD_ADDRESS"):
        notes.print(f"  export {name}={shlex.quote(variables[name])}")
    notes.print("  serve deploy configs/local.yaml\nmedrec down stops it.")


def _start_store(cell: State, records: RecordsArgs, home: Home, notes: Console) -> State:
    """Make the records ready. Returns the state with their PostgreSQL, if it is the home's own."""
    process = None
    if store.is_local(records):
        process = store.start(home, notes.print)
        server = Recorded.of(process.pid)
        cell = cell.with_sessions((), (Charged("postgres", "data", server),) if server else ())
        state.write(home, cell)
    store.bring_up(process, records, home, cell.base_url, notes.print)
    return cell


def _start_ray(cell: State, home: Home, variables: dict[str, str], line: list[str]) -> None:
    code = -1
    for _ in range(RAY_ATTEMPTS):
        code = _start(cell, home, variables, line)
        if code == 0:
            return
    raise CellError(f"ray start failed ({code}); see {home.logs / 'ray.log'}")


def _start(cell: State, home: Home, variables: dict[str, str], line: list[str]) -> int:
    """Run `ray start` in a session of its own, in which Ray's processes stay. Its exit status."""
    with (home.logs / "ray.log").open("ab") as log:
        child = subprocess.Popen(
            head.runnable(line),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=head.process_environment(variables),
            start_new_session=True,
        )
    state.write(home, cell.with_sessions((child.pid,), cell.charged))
    code = -1
    try:
        code = child.wait(RAY_START_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        cell = cell.with_sessions((child.pid,), cell.charged)
        if code == 0:
            state.write(home, cell)
        else:
            state.end_all(cell)
            child.poll()
    return code
